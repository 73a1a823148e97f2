"""Models whose weights are in memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import LayerCache, Model
from anyclaude.engine.model.sampling import Defaults, Samplers
from anyclaude.engine.model.state import Copied, Layout
from anyclaude.errors import ModelRefused
from anyclaude.wire.model_config import model_name


@dataclass(eq=False)
class ResidentModel:
    """`fingerprint` names everything that its state depends on; `nbytes` is what its weights take."""

    folder: Path
    fingerprint: bytes
    model: Model
    layout: Layout
    samplers: Samplers
    defaults: Defaults
    nbytes: int
    last_used: float = 0.0

    @property
    def name(self) -> str:
        """For people."""
        return model_name(str(self.folder))


@dataclass(frozen=True)
class Wanted:
    """What is known of a model before its weights are: from the thread that reads tokenizer and template."""

    folder: Path
    fingerprint: bytes
    masked_ids: frozenset[int]
    defaults: Defaults
    weights_bytes: int


class Models:
    """Several models under one budget of bytes for their weights: the least recently used makes room."""

    def __init__(self, budget_bytes: int, copied: Copied, clock: Callable[[], float]) -> None:
        self._budget_bytes = budget_bytes
        self._copied = copied
        self._clock = clock
        self._resident: dict[Path, ResidentModel] = {}
        self.n_loads = 0

    def __iter__(self) -> Iterator[ResidentModel]:
        return iter(self._resident.values())

    @property
    def nbytes(self) -> int:
        return sum(model.nbytes for model in self._resident.values())

    def has(self, wanted: Wanted) -> bool:
        found = self._resident.get(wanted.folder)
        return found is not None and found.fingerprint == wanted.fingerprint

    def get(self, wanted: Wanted, in_use: frozenset[Path]) -> ResidentModel:
        """Loaded now if it is not. Models that are `in_use` stay. Raises ModelRefused."""
        if not self.has(wanted):
            self.unload(wanted.folder)
            self._make_room(wanted.weights_bytes, in_use)
            self._resident[wanted.folder] = self._loaded(wanted)
            self.n_loads += 1
        found = self._resident[wanted.folder]
        found.last_used = self._clock()
        return found

    def unload(self, folder: Path) -> bool:
        """Whether it was loaded. Its blocks stay in the cache."""
        if self._resident.pop(folder, None) is None:
            return False
        mx.clear_cache()
        return True

    def unload_idle(self, in_use: frozenset[Path]) -> bool:
        """The least recently used that is not `in_use`. Whether there was one."""
        idle = [folder for folder in self._resident if folder not in in_use]
        return bool(idle) and self.unload(min(idle, key=lambda folder: self._resident[folder].last_used))

    def _make_room(self, n_bytes: int, in_use: frozenset[Path]) -> None:
        while self.nbytes + n_bytes > self._budget_bytes and self.unload_idle(in_use):
            pass

    def _loaded(self, wanted: Wanted) -> ResidentModel:
        model, _ = adapter.load(wanted.folder)
        caches, n_logits = _tried(wanted.folder, model)
        leaves: Any = tree_flatten(model.parameters())
        return ResidentModel(
            folder=wanted.folder,
            fingerprint=wanted.fingerprint,
            model=model,
            layout=Layout.of(caches, self._copied),
            samplers=Samplers(wanted.defaults, wanted.masked_ids, n_logits),
            defaults=wanted.defaults,
            nbytes=sum(leaf.nbytes for _, leaf in leaves),
        )


def _tried(folder: Path, model: Model) -> tuple[list[LayerCache], int]:
    """The state after one token, and how many tokens can come next: better refused now than in the midst of a turn."""
    try:
        return adapter.first_step(model)
    except (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ModelRefused(f"{folder} was loaded but does not run: {str(error)[:300]}") from error
