"""A made-up state that depends on every token before it, as a model's does: so a wrong, missing or swapped block shows.

Token by token a running sum; a payload is a run of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.seam import Header, Ids, Payload

TOKEN_BYTES = 8
Sums = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Sum:
    """`sums` of some tokens, or the last one alone as a snapshot."""

    sums: Sums

    @property
    def nbytes(self) -> int:
        return self.sums.nbytes


class SumCodec:
    def pack(self, payload: Payload) -> tuple[Header, list[memoryview]]:
        assert isinstance(payload, Sum)
        return {"type": "uint64", "n": len(payload.sums)}, [payload.sums.data.cast("B")]

    def unpack(self, header: Header, data: memoryview) -> Sum:
        if header.get("type") != "uint64" or header.get("n") != len(data) // TOKEN_BYTES:
            raise ValueError("not a sum")
        return Sum(np.frombuffer(data, np.uint64).copy())


def ids_of(tokens: Sequence[int]) -> Ids:
    return np.array(tokens, dtype=np.uint32)


def sums_of(ids: Sequence[int] | Ids) -> Sums:
    total, sums = 7, np.empty(len(ids), np.uint64)
    for place, token in enumerate(ids):
        total = (total * 1_000_003 + int(token) + 1) % (1 << 64)
        sums[place] = total
    return sums


def maker(ids: Sequence[int] | Ids) -> Callable[[int, int], Sum]:
    sums = sums_of(ids)
    return lambda start, end: Sum(sums[start:end].copy())


def snapshot_of(ids: Sequence[int] | Ids) -> Sum:
    return Sum(sums_of(ids)[-1:].copy())


def state_of(hit: Hit) -> Sums:
    """Put together as the engine does it."""
    parts: list[Sums] = []
    for block, n_used in hit.pieces:
        assert isinstance(block.payload, Sum)
        parts.append(block.payload.sums[:n_used])
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def assert_right(hit: Hit, ids: Sequence[int] | Ids) -> None:
    """What the hit holds is what would be computed."""
    expected = sums_of(ids[: hit.n_tokens])
    assert state_of(hit).tolist() == expected.tolist()
    if hit.needs_snapshot and hit.n_tokens:
        assert isinstance(hit.snapshot, Sum)
        assert hit.snapshot.sums.tolist() == expected[-1:].tolist()
