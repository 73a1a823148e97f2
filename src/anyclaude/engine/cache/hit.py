"""What a look-up found. It is leased: nothing of it is evicted until `release`, which every hit needs once."""

from collections.abc import Callable, Sequence

from anyclaude.engine.cache.block import Held, Piece, Snapshot
from anyclaude.engine.cache.seam import Payload


class Hit:
    """`pieces` cover the first `n_tokens` of what was asked. Their payloads, and the snapshot's, are in memory
    unless `to_load` names them; after `BlockCache.load`, which may shorten the hit, they always are."""

    def __init__(
        self, fingerprint: bytes, data: bytes, *, needs_snapshot: bool, release: "Callable[[Hit], None]"
    ) -> None:
        self.fingerprint = fingerprint
        self.data = data
        self.needs_snapshot = needs_snapshot
        self.pieces: Sequence[Piece] = ()
        self.kept: Snapshot | None = None
        self.is_released = False
        self._release = release

    @property
    def n_tokens(self) -> int:
        return sum(piece.n_used for piece in self.pieces)

    @property
    def snapshot(self) -> Payload | None:
        """The exact state after `n_tokens`, for a model that needs it."""
        return self.kept.payload if self.kept else None

    @property
    def held(self) -> list[Held]:
        """The snapshot first: without it the blocks are of no use."""
        return [*([self.kept] if self.kept else []), *(piece.block for piece in self.pieces)]

    @property
    def to_load(self) -> list[Held]:
        """What is on disk only."""
        return [held for held in self.held if held.payload is None]

    def release(self) -> None:
        if not self.is_released:
            self.is_released = True
            self._release(self)

    def __enter__(self) -> "Hit":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
