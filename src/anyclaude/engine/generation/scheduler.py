"""Who computes when. Rows that write are stepped one token at a time; between steps one row reads a chunk of prompt.

A running stream keeps at least half its speed: after a chunk the rows that write get as much time as the chunk took.
Rows share a batch only while little of it is padding, for mlx-lm pads every row to the longest; otherwise they take
turns. Reading is one row at a time: main requests first, of those the one that is done first, so that a short turn
never waits for a long prompt. Who is overtaken keeps what was read. A row begins when there is memory for it, or when
it is alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.generation.prefill import (
    CHUNK,
    LOAD_BYTES,
    SMALL_CHUNK,
    SMALL_LOAD_BYTES,
    begin,
    give_up,
    keep_state,
    known_tokens,
    read_chunk,
)
from anyclaude.engine.generation.row import Row
from anyclaude.engine.model.adapter import Live
from anyclaude.engine.model.models import ResidentModel
from anyclaude.engine.model.state import Copied, nbytes_of
from anyclaude.wire.frames import Finished, FinishReason, Report, Told

MAX_ROWS = 64
MAX_LIVE = 8
LONG_WAIT_S = 60.0
_PADDING_SHARE = 0.25
_SMALL_PADDING = 1024


class SchedulerStatistics(Struct, frozen=True):
    waiting: int
    writing: int
    batches: int
    tokens_prefilled: int
    tokens_generated: int
    live_bytes: int


class Memory(Protocol):
    def has_room(self, row: Row) -> bool:
        """Whether a row that has not begun would fit beside what there is."""
        ...

    def make_room(self, row: Row) -> None:
        """As far as it can be made: the row is alone, and begins in any case."""
        ...


class Unlimited:
    def has_room(self, row: Row) -> bool:
        return True

    def make_room(self, row: Row) -> None:
        pass


@dataclass(eq=False)
class Group:
    """Rows of one model that share a batch."""

    model: ResidentModel
    live: Live
    rows: dict[int, Row]
    capacity: int = 0

    @property
    def longest(self) -> int:
        return max(row.n_tokens for row in self.rows.values())

    def takes(self, row: Row) -> bool:
        """Whether the padding stays within bounds with this row beside the others."""
        lengths = [other.n_tokens for other in self.rows.values()] + [row.n_tokens]
        padding = max(lengths) * len(lengths) - sum(lengths)
        is_little = padding <= max(_SMALL_PADDING, _PADDING_SHARE * sum(lengths))
        return self.model is row.model and self.model.layout.can_join and is_little


class Scheduler:
    """`step` until `is_idle`. `ended` is told of each row that has written its answer before `Finished` is reported."""

    def __init__(
        self,
        cache: BlockCache,
        copied: Copied,
        *,
        report: Callable[[Report], None],
        ended: Callable[[Row], None],
        clock: Callable[[], float],
        memory: Memory | None = None,
    ) -> None:
        self._cache = cache
        self._copied = copied
        self._report = report
        self._ended = ended
        self._clock = clock
        self._memory = memory or Unlimited()
        self._reading: list[Row] = []
        self._groups: list[Group] = []
        self._owed_s = 0.0
        self._uid = 0
        self.tokens_prefilled = 0
        self.tokens_generated = 0

    @property
    def is_idle(self) -> bool:
        return not self._reading and not self._groups

    @property
    def n_rows(self) -> int:
        return len(self._reading) + sum(len(group.rows) for group in self._groups)

    @property
    def models_in_use(self) -> Iterator[ResidentModel]:
        yield from (row.model for row in self._reading)
        yield from (group.model for group in self._groups)

    def submit(self, row: Row) -> None:
        """Whatever was to be read ahead of the user of this model gives way."""
        if row.answer is not None:
            self._give_way([other for other in self._reading if other.answer is None and other.model is row.model])
        row.n_known, row.came_at = known_tokens(row, self._cache), self._clock()
        self._reading.append(row)

    def cancel(self, request_id: int) -> None:
        """What was read stays in the cache, and so does what was written."""
        for row in self._reading:
            if row.id == request_id:
                self._reading.remove(row)
                give_up(row, self._cache)
                return
        for group in self._groups:
            for uid, row in group.rows.items():
                if row.id == request_id:
                    self._take_out(group, uid, row)
                    self._ended(row)
                    return

    def drop_all(self) -> list[int]:
        """Everything that runs, after a fault: nothing of it can be trusted."""
        rows = [*self._reading, *(row for group in self._groups for row in group.rows.values())]
        for row in self._reading:
            if row.hit is not None:
                row.hit.release()
        self._reading, self._groups = [], []
        return [row.id for row in rows]

    def step(self) -> None:
        """One token for every row that writes, and a chunk for the one that reads when its time has come."""
        started = self._clock()
        for group in tuple(self._groups):
            self._write(group)
        spent_s = self._clock() - started
        self._owed_s = max(0.0, self._owed_s - spent_s) if self._groups else 0.0
        if self._owed_s == 0.0 and self._n_live < MAX_LIVE and (row := self._next()) is not None:
            started = self._clock()
            self._read(row)
            self._owed_s = self._clock() - started

    @property
    def _n_live(self) -> int:
        return sum(len(group.rows) for group in self._groups)

    def _next(self) -> Row | None:
        """Who reads now: of equals the one that is done first, unless one has waited for long. While one waits for
        memory nobody else begins, or it might wait for ever."""
        now = self._clock()
        waiting = sorted(self._reading, key=lambda row: (row.rank, now - row.came_at < LONG_WAIT_S, row.n_left))
        if self._groups:
            waiting = [row for row in waiting if row.answer is not None]
        if waiting and not waiting[0].is_begun and not self._admits(waiting[0]):
            self._give_way([row for row in waiting if row.is_begun and row.answer is None])
            waiting = [row for row in waiting if row.is_begun and row in self._reading]
        return waiting[0] if waiting else None

    def _admits(self, row: Row) -> bool:
        if self._groups or any(other.is_begun for other in self._reading):
            return self._memory.has_room(row)
        self._memory.make_room(row)
        return True

    def _read(self, row: Row) -> None:
        is_quiet = not self._groups
        if not row.is_begun and not begin(row, self._cache, self._report, LOAD_BYTES if is_quiet else SMALL_LOAD_BYTES):
            return
        before = row.n_prefilled
        is_read = read_chunk(row, self._cache, self._report, CHUNK if is_quiet else SMALL_CHUNK)
        self.tokens_prefilled += row.n_prefilled - before
        if not is_read:
            return
        if row.answer is None:
            self._prepared(row)
        else:
            self._reading.remove(row)
            self._join(row)

    def _give_way(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._prepared(row)

    def _prepared(self, row: Row) -> None:
        """What was read of it is in the cache."""
        self._reading.remove(row)
        give_up(row, self._cache)
        self._report(Told(row.id, {"n_read": row.n_done, "n_cached": row.n_cached, "n_prompt": row.n_prompt}))

    def _join(self, row: Row) -> None:
        """The last token of the prompt is read together with what the others write."""
        assert row.sampler is not None
        group = next((group for group in self._groups if group.takes(row)), None)
        if group is None:
            group = Group(row.model, Live(row.model.model), {})
            self._groups.append(group)
        self._uid += 1
        group.rows[self._uid] = row
        group.live.add(self._uid, int(row.ids[-1]), row.caches, row.sampler, row.processors)
        group.capacity = row.model.layout.capacity(group.live.caches)
        self._copied.joined += nbytes_of(group.live.caches) if len(group.rows) > 1 else 0
        row.caches = []
        row.n_prefilled += 1
        self.tokens_prefilled += 1

    def _write(self, group: Group) -> None:
        tokens = group.live.step()
        self._count_growth(group)
        for uid, token in tokens:
            self._token(group, uid, group.rows[uid], token)

    def _count_growth(self, group: Group) -> None:
        """mlx-lm makes larger arrays every 256 tokens, and copies what is in the old ones."""
        layout = group.model.layout
        capacity = layout.capacity(group.live.caches)
        if capacity > group.capacity:
            self._copied.grown += layout.token_bytes * group.capacity * len(group.rows)
        group.capacity = capacity

    def _token(self, group: Group, uid: int, row: Row, token: int) -> None:
        assert row.answer is not None
        assert row.decoder is not None
        row.generated.append(token)
        self.tokens_generated += 1
        ended: FinishReason | None = None
        if token in row.model.defaults.eos_ids:
            ended = "stop"
        else:
            for piece in row.answer.feed(row.decoder.feed(token)):
                self._report(piece)
            if row.answer.stop_sequence is not None:
                ended = "stop_sequence"
            elif len(row.generated) >= row.limit:
                ended = row.limit_reason
        if ended is not None:
            self._finish(group, uid, row, ended)

    def _finish(self, group: Group, uid: int, row: Row, ended: FinishReason) -> None:
        assert row.answer is not None
        assert row.decoder is not None
        if row.answer.stop_sequence is None:
            for piece in row.answer.feed(row.decoder.finish()):
                self._report(piece)
        for piece in row.answer.finish(ended):
            self._report(piece)
        self._ended(row)
        self._report(
            Finished(
                row.id,
                row.answer.reason(ended),
                n_prompt=row.n_prompt,
                n_cached=row.n_cached,
                n_prefilled=row.n_prefilled,
                n_out=len(row.generated),
                stop_sequence=row.answer.stop_sequence,
            )
        )
        self._take_out(group, uid, row)

    def _take_out(self, group: Group, uid: int, row: Row) -> None:
        """The state holds every token, the last one written included: all of it is kept."""
        place, before = group.live.uids.index(uid), len(group.rows)
        keep_state(row, self._cache, group.live.caches, place, row.n_tokens)
        if before > 1:
            self._copied.left += nbytes_of(group.live.caches) * (before - 1) // before
        group.live.remove(uid)
        del group.rows[uid]
        if group.rows:
            group.capacity = group.model.layout.capacity(group.live.caches)
        else:
            self._groups.remove(group)

    def statistics(self) -> SchedulerStatistics:
        return SchedulerStatistics(
            waiting=len(self._reading),
            writing=self._n_live,
            batches=len(self._groups),
            tokens_prefilled=self.tokens_prefilled,
            tokens_generated=self.tokens_generated,
            live_bytes=sum(nbytes_of(group.live.caches) for group in self._groups)
            + sum(nbytes_of(row.caches) for row in self._reading if row.is_begun),
        )
