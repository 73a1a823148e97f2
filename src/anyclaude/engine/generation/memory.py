"""Whether a row fits into the memory that the engine may take: weights, blocks, the state of what runs, and what a row
will hold at its peak, which is when it joins a batch.

It is an estimate: what a chunk computes on the way is not in it, nor an answer longer than the room that a row gets.
"""

from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.generation.row import Row
from anyclaude.engine.model.models import Models
from anyclaude.engine.model.state import ROOM

_PEAK = 2  # a join writes the whole batch anew before the old one goes


class EngineMemory:
    """`n_bytes` is the limit for all of it; `in_use` are the folders of models that stay."""

    def __init__(self, n_bytes: int, cache: BlockCache, models: Models, in_use: Callable[[], frozenset[Path]]) -> None:
        self._n_bytes = n_bytes
        self._cache = cache
        self._models = models
        self._in_use = in_use

    def has_room(self, row: Row) -> bool:
        return self._missing(row) <= 0

    def make_room(self, row: Row) -> None:
        """Blocks first: they can come back from disk. Then models that nobody uses."""
        if (missing := self._missing(row)) > 0:
            self._cache.give_up(missing)
        while self._missing(row) > 0 and self._models.unload_idle(self._in_use()):
            pass

    def _missing(self, row: Row) -> int:
        return mx.get_active_memory() + _PEAK * row.model.layout.row_bytes(row.n_prompt + ROOM) - self._n_bytes
