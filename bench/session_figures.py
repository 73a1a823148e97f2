"""What a session measured, as tables, and beside the targets that were set for the engine. Nothing here is asserted."""

import statistics
from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

OURS, NO_CACHE, PEER = "anyclaude", "no cache", "mlx_lm.server"
ROWS = ("cold", "follow-up", "second session", "after a restart", "prepared", "after a switch", "four in turn")
_MB = 1e6


class Sample(Struct, frozen=True):
    """One question. `n_read` is None where the server does not tell what it computed."""

    first_s: float
    whole_s: float
    n_prompt: int
    n_read: int | None
    n_new: int
    cpu_s: float


class Measured(Struct):
    """One server's samples of all rounds, by what they show; the same of single figures, and the most of each memory
    figure. `answers` are those to the first question, the same for all. `problem` says why there are no more."""

    name: str
    version: str
    samples: dict[str, list[Sample]] = {}
    figures: dict[str, list[float]] = {}
    memory: dict[str, int] = {}
    answers: set[str] = set()
    problem: str = ""

    def add(self, row: str, sample: Sample) -> None:
        self.samples.setdefault(row, []).append(sample)

    def note(self, figure: str, value: float | None) -> None:
        if value is not None:
            self.figures.setdefault(figure, []).append(value)

    def remember(self, memory: Mapping[str, int], only: Iterable[str] = ()) -> None:
        for name, value in memory.items():
            if not only or name in only:
                self.memory[name] = max(value, self.memory.get(name, 0))

    def first_s(self, row: str) -> float | None:
        found = self.samples.get(row)
        return statistics.median(sample.first_s for sample in found) if found else None

    def n_read(self, row: str) -> list[int]:
        return [sample.n_read for sample in self.samples.get(row, []) if sample.n_read is not None]

    def figure(self, name: str) -> float | None:
        found = self.figures.get(name)
        return statistics.median(found) if found else None

    @property
    def five_s(self) -> float | None:
        """Time to the first token, summed over the five questions of a round, at the median of each."""
        cold, follow = self.first_s("cold"), self.samples.get("follow-up")
        if cold is None or not follow:
            return None
        n_rounds = len(self.samples["cold"])
        return cold + sum(sample.first_s for sample in follow) / n_rounds


class Target(Struct, frozen=True):
    what: str
    found: str
    wanted: str
    is_met: bool


def print_table(servers: list[Measured]) -> None:
    names = [f"{server.name} {server.version}".strip() for server in servers]
    print(f"{'':17}" + "".join(f"{name:>39}" for name in names))
    print(f"{'':17}" + f"{'first token s':>19}{'read/new':>14}{'CPU s':>6}" * len(servers))
    for row in ROWS:
        print(f"{row:17}" + "".join(_cells(server, row) for server in servers))
    print(f"{'ready':17}" + "".join(f"{_seconds(server.figure('ready')):>6}{'':33}" for server in servers))
    for server in servers:
        if server.problem:
            print(f"\n{server.name} gave up in {server.problem}")


def _cells(server: Measured, row: str) -> str:
    samples = server.samples.get(row)
    if not samples:
        return f"{'-':>6}{'':33}"
    least, most = (choose(sample.first_s for sample in samples) for choose in (min, max))
    read = server.n_read(row)
    new = int(statistics.median(sample.n_new for sample in samples))
    told = f"{int(statistics.median(read)):,}" if read else "?"
    time = f"{server.first_s(row):6.2f} ({least:.2f}-{most:.2f})"
    cpu = statistics.median(sample.cpu_s for sample in samples)
    return f"{time:>19}{f'{told}/{new:,}':>14}{cpu:>6.1f}"


def answers_compared(servers: list[Measured]) -> str:
    """Greedy answers of one model to one prompt: should they differ, a server read something else."""
    answers = set[str]().union(*(server.answers for server in servers))
    return "all answered the first question alike" if len(answers) == 1 else f"{len(answers)} DIFFERENT first answers"


def print_memory(servers: list[Measured]) -> None:
    heads = ("stored one", "stored four", "live", "resident", "peak", "mlx_peak", "disk")
    print(f"\n{'MB':18}" + "".join(f"{head:>13}" for head in heads))
    for server in servers:
        figures = [server.figure(head) if head.startswith("stored") else server.memory.get(head) for head in heads]
        cells = ("-" if figure is None else f"{figure / _MB:,.1f}" for figure in figures)
        print(f"{server.name:18}" + "".join(f"{cell:>13}" for cell in cells))


def targets(servers: list[Measured]) -> list[Target]:
    """Those for which this run has figures."""
    by_name = {server.name: server for server in servers}
    ours = by_name.get(OURS)
    if ours is None:
        return []
    return [*_of_tokens(ours), *_beside(ours, by_name), *_later(ours), *_of_memory(ours)]


def _of_tokens(ours: Measured) -> Iterator[Target]:
    for row in ("follow-up", "after a restart", "prepared", "after a switch", "four in turn"):
        over = [sample.n_read - sample.n_new for sample in ours.samples.get(row, []) if sample.n_read is not None]
        if over:
            yield Target(f"tokens read, {row}", f"new {max(over):+d} at most", "new + 1", max(over) <= 1)


def _beside(ours: Measured, others: Mapping[str, Measured]) -> Iterator[Target]:
    if (peer := others.get(PEER)) is not None:
        for row in ("cold", "follow-up"):
            yield from _ratio(f"first token, {row}, of {PEER}'s", ours.first_s(row), peer.first_s(row), 1.0, "aim 0.8")
    if (bare := others.get(NO_CACHE)) is not None and ours.five_s and bare.five_s:
        times = bare.five_s / ours.five_s
        yield Target("five questions, times faster than without a cache", f"{times:.2f}", "4.8 (aim)", times >= 4.8)


def _later(ours: Measured) -> Iterator[Target]:
    follow = ours.first_s("follow-up")
    for row in ("after a restart", "prepared", "second session"):
        yield from _ratio(f"first token, {row}, of a follow-up's", ours.first_s(row), follow, 2.0)


def _of_memory(ours: Measured) -> Iterator[Target]:
    yield from _ratio("stored, four conversations, of one", ours.figure("stored four"), ours.figure("stored one"), 1.3)


def _ratio(what: str, one: float | None, other: float | None, most: float, more: str = "") -> Iterator[Target]:
    if one is not None and other:
        wanted = f"at most {most:g}" + (f", {more}" if more else "")
        yield Target(what, f"{one / other:.2f}", wanted, one / other <= most)


def print_targets(found: list[Target]) -> None:
    print(f"\n{'':52}{'this run':>18}   target")
    for target in found:
        print(f"{target.what:52}{target.found:>18}   {target.wanted}: {'met' if target.is_met else 'MISSED'}")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
