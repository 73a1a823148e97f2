"""The store tells its owner when it takes again what it refused, so that nobody has to ask."""

import threading
from collections.abc import Sequence
from pathlib import Path

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.catalogue import Catalogue
from anyclaude.engine.cache.limits import DAY_S, StoreLimits
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.cache.waiting import Job
from tests.engine.cache.states import TOKEN_BYTES, SumCodec, ids_of, maker
from tests.support.wait import wait_until

PLENTY = 1 << 30


def put_forty(cache: BlockCache) -> None:
    tokens = list(range(40))
    assert cache.put(b"model", ids_of(tokens), 0, maker(tokens))


def test_the_owner_is_told_when_there_is_room_for_what_was_refused(tmp_path: Path) -> None:
    """And only then: it need not ask."""
    folder = tmp_path / "blocks"
    told, may_go_on = threading.Semaphore(0), threading.Event()

    class SlowStore(BlockStore):
        def _write_batch(self, catalogue: Catalogue, jobs: Sequence[Job]) -> None:
            may_go_on.wait(60)
            super()._write_batch(catalogue, jobs)

    limits = StoreLimits(waiting_bytes=10 * TOKEN_BYTES, keep_free_bytes=0)
    cache = BlockCache(PLENTY, SlowStore(folder, limits, wake=told.release), SumCodec(), n_tokens=4)
    put_forty(cache)
    assert cache.tend() is None
    assert cache.statistics().n_to_write == 8
    may_go_on.set()
    while cache.statistics().n_to_write:
        assert told.acquire(timeout=60)
        assert cache.tend() is None
    cache.close(10)
    assert len(list(folder.glob("*.kv"))) == 10
    assert not told.acquire(blocking=False), "nothing was refused any more"


def test_the_owner_is_told_when_another_day_has_room(tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    now, told = 1e9, threading.Semaphore(0)
    limits = StoreLimits(daily_bytes=200, keep_free_bytes=0)
    store = BlockStore(folder, limits, clock=lambda: now, wake=told.release, check_s=0.01)
    cache = BlockCache(PLENTY, store, SumCodec(), n_tokens=4, clock=lambda: now)
    put_forty(cache)
    cache.flush(10)
    n_before = len(list(folder.glob("*.kv")))
    assert 0 < n_before < 10
    assert cache.tend() is None
    now += DAY_S
    assert told.acquire(timeout=60)
    assert cache.tend() is None
    wait_until(lambda: len(list(folder.glob("*.kv"))) > n_before, "more is written")
    cache.close(10)
