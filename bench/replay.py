"""What the ledger costs a turn: a made-up session of 200 turns goes through the steps that the gateway takes.

    .venv/bin/python -m bench.replay [--turns N] [--rounds N] [--json FILE]

The first prompt is as large as the client's own (about 50 KB: tools, system text, environment); every turn adds words,
a tool call and its result. Each figure is wall time of one turn, measured in the run that prints it; every round
begins with an empty ledger in a temporary folder.

decode      the request's JSON becomes a request: needed with or without a ledger, so no part of the cost
head        the tools that the conversation began with, and the canonical form
sections    the canonical form in sections
record      characters counted for the estimate, and the row handed to the writer
digests     the writer's thread: a digest and marks for every section
write       the writer's thread: comparison with earlier turns, transactions, and the hand-over between the threads
event loop  head, sections and record: what holds up other streams
cost        event loop, digests and write
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from anyclaude.backends.knowledge import Knowledge
from anyclaude.backends.seam import Target
from anyclaude.prompt.sections import Section, rows_of
from anyclaude.routing.choose import prompt_for, sections_for
from anyclaude.server.calibrations import save_calibration
from anyclaude.server.heads import Heads, Owner
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow
from anyclaude.wire.messages import decode_request
from bench.gateway import machine
from bench.made_up_session import requests

TARGET_MS, AT = 5.0, 100_000
NEAR = 6_000  # characters around AT that still count as that size
PARTS = ("head", "sections", "record", "digests", "write")
LOOP = ("head", "sections", "record")
TARGET = Target(kind="llamacpp", base_url="http://127.0.0.1:8080", model="bench")
OWNER = Owner("session", "", "cli")


class Measured(Struct, frozen=True):
    """One turn, in milliseconds; `n_characters` of its prompt."""

    n_characters: int
    n_sections: int
    decode: float
    parts: dict[str, float]

    @property
    def loop(self) -> float:
        return sum(self.parts[name] for name in LOOP)

    @property
    def cost(self) -> float:
        return sum(self.parts.values())


class Watch:
    """Milliseconds since it was last looked at."""

    def __init__(self) -> None:
        self._at = time.perf_counter()

    def lap(self) -> float:
        before, self._at = self._at, time.perf_counter()
        return (self._at - before) * 1000


def replay(bodies: Sequence[bytes], folder: Path) -> Iterator[Measured]:
    ledger = Ledger(folder / "ledger.sqlite3")
    heads, knowledge = Heads(ledger), Knowledge()
    try:
        for n, body in enumerate(bodies):
            yield _turn(n, body, ledger, heads, knowledge)
    finally:
        ledger.close()


def _turn(n: int, body: bytes, ledger: Ledger, heads: Heads, knowledge: Knowledge) -> Measured:
    watch, digests = Watch(), list[float]()
    request = decode_request(body)
    decode = watch.lap()
    head = heads.head(OWNER, "/project", request, teaches=True)
    prompt = prompt_for(TARGET, request, head)
    parts = {"head": watch.lap()}
    sections = sections_for(TARGET, prompt)
    parts["sections"] = watch.lap()
    row = _row(n, sum(section.n_characters for section in sections) // 4)
    watch.lap()
    assert row.tokens_prompt is not None
    save_calibration(ledger, row.server, knowledge.correct(row.server, sections, row.tokens_prompt))
    ledger.add(row, _timed(sections, digests))
    parts["record"] = watch.lap()
    ledger.flush()
    behind = watch.lap()
    assert ledger.n_lost == 0
    parts |= {"digests": digests[0], "write": behind - digests[0]}
    return Measured(sum(section.n_characters for section in sections), len(sections), decode, parts)


def _timed(sections: tuple[Section, ...], took_ms: list[float]) -> Callable[[], Sequence[SectionRow]]:
    def rows() -> Sequence[SectionRow]:
        watch = Watch()
        found = rows_of(sections)
        took_ms.append(watch.lap())
        return found

    return rows


def _row(n: int, n_tokens: int) -> TurnRow:
    return TurnRow(
        request_id=f"req_{n}", started_at=time.time(), launch="launch", session=OWNER.session, agent=None,
        request_class="main", entrypoint=OWNER.entrypoint, project="/project", backend=TARGET.kind,
        base_url=TARGET.base_url, model="bench", tokens_prompt=n_tokens, tokens_cached=None, tokens_prefilled=None,
        tokens_out=100, ttft_s=0.5, duration_s=2.0, stop_reason="tool_use", tool_calls=1, repairs=0, error=None,
    )  # fmt: skip


def _figures(turns: Sequence[Measured]) -> dict[str, list[float]]:
    columns = {"decode": [turn.decode for turn in turns]}
    columns |= {name: [turn.parts[name] for turn in turns] for name in PARTS}
    columns["event loop"] = [turn.loop for turn in turns]
    columns["cost"] = [turn.cost for turn in turns]
    return columns


def summary(turns: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Mean, median and most of each part, in ms."""
    return {
        name: {"mean": statistics.fmean(values), "median": statistics.median(values), "max": max(values)}
        for name, values in _figures(turns).items()
    }


def print_table(groups: dict[str, Sequence[Measured]]) -> None:
    print(" " * 12 + "".join(name.rjust(30) for name in groups))
    print("ms a turn".ljust(12) + "".join(f"{'mean':>14}{'median':>8}{'max':>8}" for _ in groups))
    found = [summary(turns) for turns in groups.values()]
    for name in found[0]:
        cells = [f"{each[name]['mean']:14.2f}{each[name]['median']:8.2f}{each[name]['max']:8.2f}" for each in found]
        print(name.ljust(12) + "".join(cells))


def _count(text: str) -> int:
    number = int(text)
    if not 60 <= number <= 1000:
        raise argparse.ArgumentTypeError("must be between 60 and 1000")
    return number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.replay")
    parser.add_argument("--turns", type=_count, default=200)
    parser.add_argument("--rounds", type=int, choices=range(1, 101), default=5, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    before = machine()
    bodies = list(requests(options.turns))
    turns: list[Measured] = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="anyclaude-bench-") as folder:
            turns += replay(bodies, Path(folder))
    most = max(turn.n_characters for turn in turns)
    groups: dict[str, Sequence[Measured]] = {
        f"all {options.turns} turns": turns,
        f"at {AT // 1000} KB": [turn for turn in turns if abs(turn.n_characters - AT) < NEAR],
        f"at {most // 1000} KB": [turn for turn in turns if most - turn.n_characters < 2 * NEAR],
    }
    print(f"{before}; {options.turns} turns, {options.rounds} rounds\n")
    print_table(groups)
    at = summary(groups[f"at {AT // 1000} KB"])["cost"]
    print(f"\ncost at {AT // 1000} KB of prompt  {at['median']:.2f} ms (median)   target < {TARGET_MS:g}")
    if options.json is not None:
        written: dict[str, Any] = {"machine": before, "turns": options.turns, "rounds": options.rounds}
        written |= {"figures": {name: summary(found) for name, found in groups.items()}}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
