"""What a prefix that is computed once is worth: one session on the engine, mlx_lm.server, vllm-mlx, and without cache.

    .venv/bin/python -m bench.session [--rounds N] [--skip-vllm-mlx] [--install-vllm-mlx] [--only NAME] [--json FILE]

All answer the same questions with the same model: random weights, 2 layers, float32, made here. The system prompt is
made-up text of exactly 18,490 tokens. Every server begins each round with empty folders; they take turns, in another
order each round, so that what else the machine does meets all of them alike. Figures are medians over the rounds of the
run that prints them.

cold                 the first question: nothing is known of the prompt
follow-up            questions two to five of that conversation
second session       a new conversation on the same system prompt
after a restart      the server is stopped and started again; once it answers, the conversation goes on
prepared             after a restart in a project where it was used before: while the person types, the state is loaded
after a switch       another model answers a word, then the conversation goes on
four in turn         four conversations on one system prompt, question by question in turn: their follow-ups
ready                from the start of the server's process to its first word of an answer

first token          from before the connection is opened to the first event with content, the client's own clock
read                 prompt tokens that were computed, as the server tells; new is what no earlier prompt or answer held
CPU                  seconds of all the server's processes for the whole answer: less moved by what else runs
stored               what the server keeps of prompts, as it tells itself; one conversation, and four on one prefix
"""

import argparse
import importlib.metadata
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType

from msgspec import Struct, to_builtins

from bench.asking import Asked, BadAnswer, Question, Turns
from bench.contestant_engine import Engine
from bench.contestants import FIRST_WORD, Contestant, MlxLm, Running, VllmMlx, has_vllm_mlx, install_vllm_mlx
from bench.gateway import machine
from bench.long_prompt import N_TOKENS, count_head, question, system_prompt
from bench.servers import NotStarted
from bench.session_figures import (
    NO_CACHE,
    OURS,
    Measured,
    Sample,
    answers_compared,
    print_memory,
    print_table,
    print_targets,
    targets,
)
from demo.mlx_server import has_openblas
from demo.tiny_model import make_tiny_model

N_QUESTIONS, N_CONVERSATIONS = 5, 4
ANSWER_TOKENS = 24
LONGEST_RUN_S = 3600
NO_CACHE_OPTIONS = {"kv_memory_mb": 1, "kv_disk_mb": 0}  # the least that there is: the newest block of 256 tokens


class Conversation:
    """Asks one question after the other, and counts which tokens of each prompt are new: not among the first `n_known`,
    and in no earlier prompt or answer."""

    def __init__(self, system: str, number: int, model: Path, n_known: int) -> None:
        self._system = system
        self._number = number
        self._model = model
        self._turns: Turns = []
        self._n_known = n_known
        self._n_asked = 0
        self.last_answer = ""

    def next(self, server: Running) -> Sample:
        """Raises BadAnswer."""
        self._turns.append(("user", question(self._number, self._n_asked)))
        self._n_asked += 1
        cpu_s = server.cpu_s()
        asked = server.ask(self._model, Question(self._system, self._turns, ANSWER_TOKENS))
        self._turns.append(("assistant", asked.text))
        self.last_answer = asked.text
        sample = _sample(asked, asked.n_prompt - self._n_known, server.cpu_s() - cpu_s)
        self._n_known = asked.n_prompt + asked.n_out
        return sample


def _sample(asked: Asked, n_new: int, cpu_s: float) -> Sample:
    n_read = None if asked.n_cached is None else asked.n_prompt - asked.n_cached
    return Sample(asked.first_s, asked.whole_s, asked.n_prompt, n_read, n_new, cpu_s)


class Models(Struct, frozen=True):
    """Two model folders and the system prompt. `n_shared` are the tokens of a first prompt up to the person's words."""

    one: Path
    other: Path
    system: str
    n_shared: int


class Round:
    """Both phases of one contestant in one round, with folders below `home`."""

    def __init__(self, contestant: Contestant, models: Models, home: Path, measured: Measured) -> None:
        self._contestant = contestant
        self._models = models
        self._home = home
        self._measured = measured

    def run(self) -> None:
        """Raises BadAnswer or NotStarted."""
        talk = self._conversation(0)
        with self._running("session", "one") as server:
            self._measured.add("cold", talk.next(server))
            self._measured.answers.add(talk.last_answer)
            for _ in range(N_QUESTIONS - 1):
                self._measured.add("follow-up", talk.next(server))
            self._measured.note("stored one", server.stored_bytes())
            if self._contestant.name != NO_CACHE:
                self._second_session(server)
            self._live(server)
            self._measured.remember(server.memory())
        if self._contestant.name != NO_CACHE:
            self._restarted(talk)
            self._prepared(talk)
            self._four()

    def _running(self, home: str, project: str) -> AbstractContextManager[Running]:
        return self._contestant.running(self._home / home, self._home / project)

    def _conversation(self, number: int, n_known: int = 0) -> Conversation:
        return Conversation(self._models.system, number, self._models.one, n_known)

    def _second_session(self, server: Running) -> None:
        self._measured.add("second session", self._conversation(1, self._models.n_shared).next(server))

    def _live(self, server: Running) -> None:
        """What a turn takes while it writes: looked at after its first token."""
        looked = Question(self._models.system, [("user", question(9, 0))], 4 * ANSWER_TOKENS)
        server.ask(self._models.one, looked, lambda: self._measured.remember(server.memory(), only=("live",)))

    def _restarted(self, talk: Conversation) -> None:
        """In a project that nothing was asked in yet, so that nothing is done ahead of the question."""
        started = time.perf_counter()
        with self._running("session", "two") as server:
            self._measured.note("ready", time.perf_counter() - started)
            self._measured.add("after a restart", talk.next(server))
            if self._contestant.switches:
                server.ask(self._models.other, FIRST_WORD)
                self._measured.add("after a switch", talk.next(server))

    def _prepared(self, talk: Conversation) -> None:
        if self._contestant.prepares:
            with self._running("session", "two") as server:
                server.settle()
                self._measured.add("prepared", talk.next(server))

    def _four(self) -> None:
        """The first of the four pays for the system prompt; the first questions of the others are left out."""
        talks = [self._conversation(number) for number in range(N_CONVERSATIONS)]
        with self._running("four", "four") as server:
            for n in range(N_QUESTIONS):
                for talk in talks:
                    sample = talk.next(server)
                    if n:
                        self._measured.add("four in turn", sample)
            self._measured.note("stored four", server.stored_bytes())


def measure(contestants: Sequence[Contestant], models: Models, folder: Path, n_rounds: int) -> list[Measured]:
    """Whoever fails in one round is left out of the next."""
    found = {contestant.name: Measured(contestant.name, contestant.version) for contestant in contestants}
    for n, turn in enumerate(_orders(contestants, n_rounds)):
        for contestant in turn:
            measured = found[contestant.name]
            if measured.problem:
                continue
            _say(f"round {n + 1} of {n_rounds}: {contestant.name}")
            home = folder / f"{n}-{contestant.name.replace(' ', '-')}"
            home.mkdir(mode=0o700)
            try:
                Round(contestant, models, home, measured).run()
            except (BadAnswer, NotStarted) as error:
                measured.problem = f"round {n + 1}: {error}"
    return list(found.values())


def _orders(contestants: Sequence[Contestant], n_rounds: int) -> Iterator[list[Contestant]]:
    """Each round another one begins."""
    for n in range(n_rounds):
        at = n % len(contestants)
        yield [*contestants[at:], *contestants[:at]]


def _contestants(options: argparse.Namespace, folders: tuple[Path, Path]) -> list[Contestant]:
    found: list[Contestant] = [
        Engine(folders, OURS),
        MlxLm(folders, importlib.metadata.version("mlx-lm")),
        Engine(folders, NO_CACHE, NO_CACHE_OPTIONS),
    ]
    if not options.skip_vllm_mlx and has_vllm_mlx():
        found.insert(2, VllmMlx(folders))
    return [contestant for contestant in found if not options.only or contestant.name in options.only]


def _say(progress: str) -> None:
    print(f"{progress}", file=sys.stderr, flush=True)


def _stop(number: int, _frame: FrameType | None) -> None:
    why = f"the run took longer than {LONGEST_RUN_S} s" if number == signal.SIGALRM else "stopped"
    raise SystemExit(f"bench.session: {why}")


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError("must be between 1 and 100")
    return number


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.session")
    parser.add_argument("--rounds", type=_count, default=3)
    parser.add_argument("--skip-vllm-mlx", action="store_true")
    parser.add_argument("--install-vllm-mlx", action="store_true", help="make bench/.vllm-mlx first (needs PyPI)")
    names = (OURS, MlxLm.name, VllmMlx.name, NO_CACHE)
    parser.add_argument("--only", action="append", choices=names, help="measure this one; may be given again")
    parser.add_argument("--folder", type=Path, help="keep the servers' folders and logs there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the samples there")
    return parser.parse_args()


def main() -> None:
    options = _options()
    if options.install_vllm_mlx:
        install_vllm_mlx()
    wants_vllm_mlx = not options.skip_vllm_mlx and VllmMlx.name in (options.only or [VllmMlx.name])
    if wants_vllm_mlx and not has_vllm_mlx():
        raise SystemExit("bench.session: vllm-mlx is not there; add --install-vllm-mlx or --skip-vllm-mlx")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, _stop)
    signal.alarm(LONGEST_RUN_S)
    before = machine()
    with tempfile.TemporaryDirectory(prefix="anyclaude-bench-") as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        folders = tuple(make_tiny_model(folder / f"model-{seed}", seed=seed, end_share=0.0) for seed in (0, 1))
        assert len(folders) == 2
        system = system_prompt(folders[0])
        models = Models(*folders, system, count_head(folders[0], system))
        found = measure(_contestants(options, folders), models, folder, options.rounds)
    blas = "OpenBLAS" if has_openblas() else "no OpenBLAS: five times slower"
    print(f"{before}; {blas}; {N_TOKENS:,} tokens of system prompt, {options.rounds} rounds\n")
    print_table(found)
    print(f"\n{NO_CACHE}: this engine with {NO_CACHE_OPTIONS}; {answers_compared(found)}")
    print_memory(found)
    print_targets(targets(found))
    if options.json is not None:
        written = {"machine": before, "rounds": options.rounds, "servers": to_builtins(found)}
        options.json.write_text(json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
