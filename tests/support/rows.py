"""The engine's scheduler in this process, fed with token ids: what it reads, writes and keeps; no text, no frames."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.generation.output import Answer, Markers
from anyclaude.engine.generation.row import Ids, Row
from anyclaude.engine.generation.scheduler import Scheduler
from anyclaude.engine.model.models import Models, ResidentModel, Wanted
from anyclaude.engine.model.sampling import Defaults
from anyclaude.engine.model.state import Copied, StateCodec
from anyclaude.wire.frames import Report, RequestClass, Sampling

NEVER_ENDS = Defaults()


class Silent:
    """A decoder without a vocabulary."""

    def feed(self, token: int) -> str:
        return ""

    def finish(self) -> str:
        return ""


class Bench:
    """One scheduler with its cache. `step_until` runs it; `done` has each row as it ended."""

    def __init__(
        self,
        cache: BlockCache | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.copied = Copied()
        self.cache = cache or BlockCache(1 << 30)
        self.models = Models(1 << 34, self.copied, time.monotonic)
        self.reports: list[Report] = []
        self.done: list[Row] = []
        self.scheduler = Scheduler(
            self.cache, self.copied, report=self.reports.append, ended=self.done.append, clock=clock
        )
        self._n = 0

    def model(self, folder: Path, *, fingerprint: bytes | None = None) -> ResidentModel:
        wanted = Wanted(folder, fingerprint or bytes(str(folder), "utf-8"), frozenset(), NEVER_ENDS, 0)
        return self.models.get(wanted, frozenset())

    def row(
        self,
        model: ResidentModel,
        ids: Sequence[int],
        n_out: int = 8,
        *,
        head_end: int = 0,
        ends: Sequence[int] = (),
        request_class: RequestClass = "main",
    ) -> Row:
        self._n += 1
        return Row(
            id=self._n,
            model=model,
            ids=np.array(ids, np.uint32),
            head_end=head_end,
            ends=tuple(ends),
            request_class=request_class,
            limit=n_out,
            answer=Answer(self._n, Markers(), None, (), (), begins_in_reasoning=False),
            decoder=Silent(),
            sampler=model.samplers.of(Sampling(temperature=0.0)),
        )

    def submit(self, model: ResidentModel, ids: Sequence[int], n_out: int = 8, **fields: object) -> Row:
        row = self.row(model, ids, n_out, **fields)  # pyright: ignore[reportArgumentType]
        self.scheduler.submit(row)
        return row

    def finish(self) -> None:
        while not self.scheduler.is_idle:
            self.scheduler.step()

    def generate(self, model: ResidentModel, ids: Sequence[int], n_out: int = 8, **fields: object) -> Row:
        row = self.submit(model, ids, n_out, **fields)
        self.finish()
        return row


def some_ids(n: int, seed: int = 0, n_vocab: int = 1_800) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, n_vocab, n)]


def codec() -> StateCodec:
    return StateCodec()


def as_ids(ids: Sequence[int]) -> Ids:
    return np.array(ids, np.uint32)
