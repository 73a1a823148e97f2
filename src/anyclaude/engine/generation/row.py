"""One turn on its way through the engine: what it reads, how it writes, and how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.seam import Ids
from anyclaude.engine.cache.seam import RequestClass as BlockClass
from anyclaude.engine.generation.output import Answer
from anyclaude.engine.model.adapter import LayerCache, LogitsProcessor, Sampler
from anyclaude.engine.model.models import ResidentModel
from anyclaude.wire.frames import FinishReason, RequestClass


class Decoder(Protocol):
    """Token ids in turn to text, as far as it is whole."""

    def feed(self, token: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(eq=False)
class Row:
    """`ids` is the prompt; `ends` are the places where the state of layers that cannot be cut is kept, `head_end` the
    first of them. `limit` is the most tokens that it may write, and `limit_reason` what to call it when it has.

    A row without `answer` only reads: its prefix is wanted in the cache, ahead of the user. `hit` is what the cache
    knows of it, while that is read from disk, `n_known` how much it knew when the row came; once it has begun, `caches`
    hold its first `n_done` tokens.
    """

    id: int
    model: ResidentModel
    ids: Ids
    head_end: int
    ends: tuple[int, ...]
    request_class: RequestClass
    limit: int = 0
    limit_reason: FinishReason = "length"
    answer: Answer | None = None
    decoder: Decoder | None = None
    sampler: Sampler | None = None
    processors: Sequence[LogitsProcessor] = ()
    is_private: bool = False
    caches: list[LayerCache] = field(default_factory=list[LayerCache])
    generated: list[int] = field(default_factory=list[int])
    hit: Hit | None = None
    is_begun: bool = False
    n_cached: int = 0
    n_done: int = 0
    n_known: int = 0
    came_at: float = 0.0
    n_prefilled: int = 0

    @property
    def n_prompt(self) -> int:
        return len(self.ids)

    @property
    def n_tokens(self) -> int:
        return len(self.ids) + len(self.generated)

    @property
    def rank(self) -> int:
        """Who is read first: a person waits for main requests, nobody for what is ahead of the user."""
        if self.answer is None:
            return 3
        return {"main": 0, "side": 1, "agent": 2}[self.request_class]

    @property
    def n_left(self) -> int:
        """Prompt tokens still to be read, as far as can be told."""
        return self.n_prompt - max(self.n_done, self.n_known)

    @property
    def block_class(self) -> BlockClass:
        """Agents and side requests never push out a main conversation."""
        return "conversation" if self.request_class == "main" else "side"

    @property
    def head_class(self) -> BlockClass:
        """Their tools and system prompts neither."""
        return "system" if self.request_class == "main" else "side"

    def all_ids(self) -> Ids:
        """What the state holds once all of the prompt is read."""
        return np.concatenate([self.ids, self.generated_ids()]) if self.generated else self.ids

    def generated_ids(self) -> Ids:
        return np.array(self.generated, np.uint32)
