import random
from typing import Any

import numpy as np
import pytest

from anyclaude.engine.cache import finding
from anyclaude.engine.cache.block import WIDTH, bytes_of
from anyclaude.engine.cache.blocks import N_TOKENS, BlockCache
from anyclaude.engine.cache.seam import Ids
from tests.engine.cache.states import Sum, ids_of, maker

MODEL, OTHER = b"model", b"other"
PLENTY = 1 << 30


class Counted(bytes):
    """Ids that count what is done with them: bytes that are copied, hashed and compared."""

    n_bytes = 0

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        if not isinstance(part, bytes):
            return part
        Counted.n_bytes += len(part)
        return Counted(part)

    def __hash__(self) -> int:
        Counted.n_bytes += len(self)
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.n_bytes += len(self)
        return super().__eq__(other)

    def startswith(self, prefix: Any, *places: Any) -> bool:
        Counted.n_bytes += len(prefix)
        return super().startswith(prefix, *places)


def counted(ids: Ids) -> bytes:
    return Counted(bytes_of(ids))


@pytest.mark.parametrize("needs_snapshot", [False, True])
def test_a_lookup_is_linear_in_the_tokens_asked_for(monkeypatch: pytest.MonkeyPatch, needs_snapshot: bool) -> None:
    """Each token is copied, hashed and compared once; less than a block at the end is tried in every length."""
    tokens = np.array(random.Random(1).choices(range(150_000), k=100_000), dtype=np.uint32)
    cache = BlockCache(PLENTY)
    cache.put(MODEL, tokens, 0, lambda start, end: Sum(np.zeros(end - start, np.uint64)))
    cache.put_snapshot(MODEL, tokens[:200], Sum(np.zeros(1, np.uint64)))
    monkeypatch.setattr(finding, "bytes_of", counted)
    for n in (25_000, 50_000, 100_000):
        Counted.n_bytes = 0
        with cache.match(MODEL, tokens[:n], needs_snapshot=needs_snapshot) as hit:
            assert hit.n_tokens == (200 if needs_snapshot else n)
        assert 3 * n * WIDTH <= Counted.n_bytes <= (3 + needs_snapshot) * n * WIDTH + 3 * N_TOKENS**2 * WIDTH


def test_what_was_used_last_is_known_by_its_ids() -> None:
    cache = BlockCache(PLENTY, n_tokens=4)
    older, newer = [*range(10)], [*range(4), *range(50, 59)]
    for tokens in (older, newer):
        cache.put(MODEL, ids_of(tokens), 0, maker(tokens))
    assert cache.latest(MODEL, 100).tolist() == newer
    cache.match(MODEL, ids_of(older)).release()
    assert cache.latest(MODEL, 100).tolist() == older
    assert cache.latest(MODEL, 6).tolist() == older[:6]
    assert cache.latest(OTHER, 6).tolist() == []
