"""Sums over turns. Every figure is a sum of what servers told; the one that is computed, time saved, names its formula.

Time saved = cached tokens x seconds a token, where seconds a token is the median of time to the first piece / tokens
read, over the turns of the same model and server that read at least MIN_READ tokens: shorter ones measure what every
turn costs besides reading, and the median is not moved by a turn that waited for another.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from anyclaude.telemetry.turns import CLIENT_LEFT, TurnRow

MIN_READ = 2048
FORMULA = f"cached tokens x (time to first piece / tokens read, median of turns that read {MIN_READ:,} tokens or more)"
_SLOWEST = 5


class Rate(Struct, frozen=True):
    """How fast one model on one server reads: what time saved is computed from."""

    model: str
    n_turns: int
    tokens_read: int
    seconds_a_token: float


class Sums(Struct, frozen=True, kw_only=True):
    """`cancelled` turns are those that the client left; they are none of the `failed`. `tokens_cached` and `hit_rate`
    are of the turns whose server told what it cached; `seconds_saved` is None where no turn read enough to know the
    speed."""

    name: str
    turns: int
    failed: int
    cancelled: int
    tokens_prompt: int
    tokens_cached: int | None
    tokens_out: int
    hit_rate: float | None
    median_ttft_s: float | None
    seconds_saved: float | None


class Summary(Struct, frozen=True, kw_only=True):
    total: Sums
    by_project: tuple[Sums, ...]
    by_session: tuple[Sums, ...]
    by_model: tuple[Sums, ...]
    rates: tuple[Rate, ...]
    formula: str
    slowest: tuple[TurnRow, ...]


def summarize(rows: Sequence[TurnRow], basis: Iterable[TurnRow]) -> Summary:
    """`basis` are the turns that the speed of reading is taken from: the more, the better."""
    rates = _rates(basis)

    def grouped(name_of: Callable[[TurnRow], str]) -> tuple[Sums, ...]:
        groups: dict[str, list[TurnRow]] = {}
        for row in rows:
            groups.setdefault(name_of(row), []).append(row)
        sums = [_sums(name, group, rates) for name, group in groups.items()]
        return tuple(sorted(sums, key=lambda each: -each.tokens_prompt))

    timed = [row for row in rows if row.error is None]
    return Summary(
        total=_sums("all", rows, rates),
        by_project=grouped(lambda row: row.project),
        by_session=grouped(lambda row: row.session),
        by_model=grouped(lambda row: row.model),
        rates=tuple(rates[server] for server in dict.fromkeys(row.server for row in rows) if server in rates),
        formula=FORMULA,
        slowest=tuple(sorted(timed, key=lambda row: -row.duration_s)[:_SLOWEST]),
    )


def _rates(basis: Iterable[TurnRow]) -> dict[tuple[str, str, str], Rate]:
    groups: dict[tuple[str, str, str], list[tuple[int, float]]] = {}
    for row in basis:
        if row.tokens_prefilled is not None and row.tokens_prefilled >= MIN_READ and row.ttft_s is not None:
            groups.setdefault(row.server, []).append((row.tokens_prefilled, row.ttft_s))
    return {
        server: Rate(
            server[2],
            len(read),
            sum(tokens for tokens, _ in read),
            statistics.median(seconds / tokens for tokens, seconds in read),
        )
        for server, read in groups.items()
    }


def _sums(name: str, rows: Sequence[TurnRow], rates: dict[tuple[str, str, str], Rate]) -> Sums:
    told = [row for row in rows if row.tokens_cached is not None and row.tokens_prompt]
    cached = sum(row.tokens_cached or 0 for row in told)
    saved = [(row.tokens_cached or 0) * rates[row.server].seconds_a_token for row in told if row.server in rates]
    first = [row.ttft_s for row in rows if row.ttft_s is not None]
    return Sums(
        name=name,
        turns=len(rows),
        failed=sum(row.error not in (None, CLIENT_LEFT) for row in rows),
        cancelled=sum(row.error == CLIENT_LEFT for row in rows),
        tokens_prompt=sum(row.tokens_prompt or 0 for row in rows),
        tokens_cached=cached if told else None,
        tokens_out=sum(row.tokens_out or 0 for row in rows),
        hit_rate=cached / sum(row.tokens_prompt or 0 for row in told) if told else None,
        median_ttft_s=statistics.median(first) if first else None,
        seconds_saved=sum(saved) if saved else None,
    )
