"""What a gateway adds: anyclaude and LiteLLM's proxy in front of one scripted server, beside that server alone.

    .venv/bin/python -m bench.gateway [--rounds N] [--events N] [--skip-litellm] [--install-litellm] [--json FILE]

Servers take turns within each round, so that what else the machine does meets all of them alike. Every figure printed
was measured in the run that prints it; answers are checked word by word.

first text   from the first byte of a 100 KB Messages request to the first word of its answer, one request at a time
burst        streams of N events that the model server writes at once, one at a time: the most a gateway can gain from
             events that arrive together
paced        8 streams at once, each with one event every 2 ms: what a model that generates looks like
requests/s   whole streams of the burst kind, 8 at a time
memory       resident, the server and its children, after all of that

The client looks at its sockets every half millisecond in the last three, which bounds the figures of the server alone.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec import Struct, to_builtins

from bench.backend import BURST, PACED
from bench.client import BadAnswer, Connection, check, http_request, stream_for
from bench.figures import Figures, print_table, print_targets, targets
from bench.prompt import request_body
from bench.servers import NotStarted, Server, anyclaude, backend, has_litellm, install_litellm, litellm

LARGE_BYTES, SMALL_BYTES = 100_000, 500
CONCURRENCY = 8
GAP_S = 0.002
SLICE_S = 2.0
WARM_UP = 5
LONGEST_RUN_S = 1500


class Slice(Struct, frozen=True):
    """Some seconds of whole streams from one server."""

    n_streams: int
    n_events: int
    wall_s: float
    cpu_s: float

    @property
    def events_per_s(self) -> float:
        return self.n_events / self.wall_s

    @property
    def streams_per_s(self) -> float:
        return self.n_streams / self.wall_s

    @property
    def cpu_ms_per_event(self) -> float:
        return self.cpu_s * 1000 / self.n_events


class Measured(Struct):
    """Samples of one server, one entry a round."""

    first_ms: list[float] = []
    burst: list[Slice] = []
    paced: list[Slice] = []
    load: list[Slice] = []
    memory_mb: float = 0.0


class Bench:
    def __init__(self, servers: list[Server], n_events: int) -> None:
        self._servers = servers
        self._n_events = n_events
        self._measured = {server.name: Measured() for server in servers}

    def run(self, n_rounds: int) -> list[Figures]:
        """Each phase goes through all servers in every round; the throughput phases have a fifth of the rounds."""
        for server in self._servers:
            self._warm_up(server)
        self._first_text(n_rounds)
        for _ in range(max(3, n_rounds // 5)):
            for server in self._servers:
                measured = self._measured[server.name]
                measured.burst.append(self._slice(server, BURST, 1))
                measured.paced.append(self._slice(server, PACED, CONCURRENCY))
                measured.load.append(self._slice(server, BURST, CONCURRENCY))
        for server in self._servers:
            self._measured[server.name].memory_mb = server.resident_mb()
        return [self._figures(server) for server in self._servers]

    def _request(self, server: Server, model: str, size: int) -> bytes:
        return http_request(server.port, server.api, server.key, request_body(server.api, model, size))

    def _warm_up(self, server: Server) -> None:
        connection = Connection(server.port)
        for _ in range(WARM_UP):
            for model, size in ((PACED, LARGE_BYTES), (BURST, SMALL_BYTES)):
                check(connection.ask(self._request(server, model, size)).raw, server.api, self._n_events)
        connection.close()

    def _first_text(self, n_rounds: int) -> None:
        connections = [Connection(server.port) for server in self._servers]
        for n in range(n_rounds):
            _say(f"first text: round {n + 1} of {n_rounds}")
            for server, connection in zip(self._servers, connections, strict=True):
                answer = connection.ask(self._request(server, PACED, LARGE_BYTES))
                check(answer.raw, server.api, self._n_events)
                self._measured[server.name].first_ms.append(answer.first_s * 1000)
        for connection in connections:
            connection.close()

    def _slice(self, server: Server, model: str, n_clients: int) -> Slice:
        """Starts streams for SLICE_S seconds and lets the last ones end."""
        _say(f"{model} x {n_clients}: {server.name}")
        request = self._request(server, model, SMALL_BYTES)
        cpu_s, started = server.cpu_s(), time.perf_counter()
        answers = stream_for(SLICE_S, server.port, request, n_clients)
        wall_s, cpu_s = time.perf_counter() - started, server.cpu_s() - cpu_s
        for raw in {answer.raw for answer in answers}:
            check(raw, server.api, self._n_events)
        return Slice(len(answers), len(answers) * self._n_events, wall_s, cpu_s)

    def _figures(self, server: Server) -> Figures:
        measured, direct = self._measured[server.name], self._measured["direct"]
        added = [ours - theirs for ours, theirs in zip(measured.first_ms, direct.first_ms, strict=True)]
        rates = [piece.streams_per_s for piece in measured.load]
        return Figures(
            server=server.name,
            version=server.version,
            first_text_ms=statistics.median(measured.first_ms),
            first_text_p90_ms=sorted(measured.first_ms)[len(measured.first_ms) * 9 // 10],
            added_ms=statistics.median(added),
            burst_events_per_s=statistics.median(piece.events_per_s for piece in measured.burst),
            burst_cpu_ms_per_event=statistics.median(piece.cpu_ms_per_event for piece in measured.burst),
            paced_cpu_ms_per_event=statistics.median(piece.cpu_ms_per_event for piece in measured.paced),
            requests_per_s=statistics.median(rates),
            requests_per_s_range=(min(rates), max(rates)),
            memory_mb=measured.memory_mb,
        )


def machine() -> str:
    load = ", ".join(f"{figure:.1f}" for figure in os.getloadavg())
    return f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {load}"


def _say(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)


def measure(options: argparse.Namespace) -> list[Figures]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="anyclaude-bench-")))
        direct = stack.enter_context(backend(folder, options.events, GAP_S))
        servers = [direct, stack.enter_context(anyclaude(folder, direct.port))]
        if not options.skip_litellm:
            servers.append(stack.enter_context(litellm(folder, direct.port)))
        return Bench(servers, options.events).run(options.rounds)


def _stop(number: int, _frame: FrameType | None) -> None:
    why = f"the run took longer than {LONGEST_RUN_S} s" if number == signal.SIGALRM else "stopped"
    raise SystemExit(f"bench.gateway: {why}")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 2000:
        raise argparse.ArgumentTypeError("must be between 1 and 2000")
    return number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway")
    parser.add_argument(
        "--rounds", type=_count, default=30, help="rounds of the first phase; a fifth of them of the rest"
    )
    parser.add_argument("--events", type=_count, default=200, help="events in one stream")
    parser.add_argument("--skip-litellm", action="store_true")
    parser.add_argument("--install-litellm", action="store_true", help="make bench/.litellm first (needs PyPI)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.install_litellm:
        install_litellm()
    if not options.skip_litellm and not has_litellm():
        raise SystemExit("bench.gateway: LiteLLM is not there; add --install-litellm or --skip-litellm")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.alarm(LONGEST_RUN_S)
    before = machine()
    try:
        rows = measure(options)
    except (BadAnswer, NotStarted) as error:
        raise SystemExit(f"bench.gateway: {error}") from None
    _say("")
    print(f"{before}; {options.events} events a stream, {options.rounds} rounds\n")
    print_table(rows)
    found = targets(rows)
    print_targets(found)
    if options.json is not None:
        written: dict[str, Any] = {"machine": before, "events": options.events, "rounds": options.rounds}
        written |= {"figures": to_builtins(rows), "targets": found}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
