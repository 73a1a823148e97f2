import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from anyclaude.engine.cache import store
from anyclaude.engine.cache.block_file import MAGIC, file_name
from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.catalogue import Catalogue
from anyclaude.engine.cache.folder import MAX_ASIDE
from anyclaude.engine.cache.limits import DAY_S, StoreLimits
from anyclaude.engine.cache.seam import RequestClass
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.cache.waiting import Job
from tests.engine.cache.states import TOKEN_BYTES, Sum, SumCodec, assert_right, ids_of, maker, snapshot_of
from tests.support.wait import wait_until

MODEL = b"model"
PLENTY = 1 << 30
NO_FLOOR = StoreLimits(keep_free_bytes=0)


class Opened(Protocol):
    def __call__(
        self, limits: StoreLimits = ..., *, budget: int = ..., clock: Callable[[], float] = ..., check_s: float = ...
    ) -> BlockCache: ...


@pytest.fixture
def opened(tmp_path: Path) -> Generator[Opened]:
    """A cache on the one folder of the test; what is open at the end is closed."""
    caches: list[BlockCache] = []

    def open_cache(
        limits: StoreLimits = NO_FLOOR,
        *,
        budget: int = PLENTY,
        clock: Callable[[], float] = lambda: 1e9,
        check_s: float = 5.0,
    ) -> BlockCache:
        store = BlockStore(tmp_path / "blocks", limits, clock=clock, retry_s=0.0, check_s=check_s)
        caches.append(BlockCache(budget * TOKEN_BYTES, store, SumCodec(), n_tokens=4, clock=clock))
        return caches[-1]

    yield open_cache
    for cache in caches:
        cache.close(10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blocks"


def put(cache: BlockCache, tokens: list[int], request_class: RequestClass = "conversation", **more: bool) -> bool:
    return cache.put(MODEL, ids_of(tokens), 0, maker(tokens), request_class, **more)


def found(cache: BlockCache, tokens: list[int], *, needs_snapshot: bool = False) -> int:
    with cache.match(MODEL, ids_of(tokens), needs_snapshot=needs_snapshot) as hit:
        assert cache.load(hit)
        assert_right(hit, tokens)
        return hit.n_tokens


def run(start: int, n: int) -> list[int]:
    return list(range(start, start + n))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.kv"))


def store_of(cache: BlockCache):
    figures = cache.statistics().store
    assert figures
    return figures


def test_after_a_restart_everything_is_found_again(opened: Opened, folder: Path) -> None:
    first = opened()
    put(first, run(0, 30), "system")
    put(first, [*run(0, 30), *run(100, 9)])
    first.put_snapshot(MODEL, ids_of(run(0, 30)), snapshot_of(run(0, 30)))
    first.close(10)
    again = opened()
    assert again.statistics().n_blocks_in_memory == 0
    assert found(again, [*run(0, 30), *run(100, 9)]) == 39
    assert found(again, run(0, 30), needs_snapshot=True) == 30
    assert again.ls()[-1]["request_class"] == "conversation"
    again.check_integrity()
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_each_block_is_written_once_and_a_tail_when_it_was_left_alone(opened: Opened, folder: Path) -> None:
    now = 1e9
    cache = opened(clock=lambda: now)
    for end in range(5, 30):
        put(cache, run(0, end))
    wait_until(lambda: len(files(folder)) == 7, "the whole blocks are written")
    now += 60
    assert cache.tend() is None
    wait_until(lambda: len(files(folder)) == 8, "the tail is written")
    put(cache, run(0, 33))
    cache.flush(10)
    assert store_of(cache).n_written == 10
    wait_until(lambda: len(files(folder)) == 9, "the tail that was replaced is gone")


def test_what_is_private_is_never_written(opened: Opened, folder: Path) -> None:
    cache = opened()
    put(cache, run(0, 8), is_private=True)
    put(cache, run(0, 18), is_private=True)
    cache.put_snapshot(MODEL, ids_of(run(0, 9)), snapshot_of(run(0, 9)), is_private=True)
    put(cache, [*run(0, 8), *run(50, 4)], is_private=True)
    cache.flush(10)
    assert files(folder) == []
    put(cache, run(0, 12))
    cache.flush(10)
    assert len(files(folder)) == 3, "what someone else has, too, is not private"


def test_blocks_that_left_memory_are_read_again(opened: Opened) -> None:
    cache = opened(budget=8)
    put(cache, run(0, 40))
    assert found(cache, run(0, 40)) == 40
    put(cache, run(100, 8))
    figures = cache.statistics()
    assert figures.held_bytes <= figures.budget_bytes
    assert found(cache, run(0, 40)) == 40
    cache.check_integrity()


def test_more_than_may_wait_is_written_in_the_end(opened: Opened, folder: Path) -> None:
    cache = opened(StoreLimits(waiting_bytes=50, keep_free_bytes=0))
    put(cache, run(0, 200), "side")
    assert cache.flush(20)
    assert len(files(folder)) == 50


def test_a_tail_that_leaves_memory_is_written_first(opened: Opened) -> None:
    cache = opened(budget=8)
    put(cache, run(0, 6))
    put(cache, run(100, 8))
    assert cache.statistics().n_blocks_in_memory == 2
    assert found(cache, run(0, 6)) == 6


def test_a_hit_is_loaded_in_pieces(opened: Opened) -> None:
    first = opened()
    put(first, run(0, 40))
    first.close(10)
    cache = opened()
    with cache.match(MODEL, ids_of(run(0, 40))) as hit:
        assert sum(held.n_bytes for held in hit.to_load) == 40 * TOKEN_BYTES
        steps = 0
        while not cache.load(hit, 8 * TOKEN_BYTES):
            steps += 1
        assert steps == 4
        assert_right(hit, run(0, 40))


@pytest.mark.parametrize("harm", ["cut", "flip in the data", "flip in the head", "empty", "another's", "link", "gone"])
def test_a_damaged_file_ends_the_hit_before_it_and_is_set_aside(opened: Opened, folder: Path, harm: str) -> None:
    first = opened()
    put(first, run(0, 20))
    third = first.match(MODEL, ids_of(run(0, 20))).pieces[2].block.name
    first.close(10)
    path, other = folder / file_name(third), next(each for each in files(folder) if each.name != file_name(third))
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[:-5])
    elif harm == "flip in the data":
        content[-3] ^= 1
        path.write_bytes(content)
    elif harm == "flip in the head":
        content[40] ^= 1
        path.write_bytes(content)
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "another's":
        path.write_bytes(other.read_bytes())
    else:
        path.unlink()
    if harm == "link":
        path.symlink_to(other)
    cache = opened()
    assert found(cache, run(0, 20)) == 8
    cache.check_integrity()
    assert (folder / "damaged" / path.name).is_symlink() == (harm == "link")
    assert (folder / "damaged" / path.name).exists() == (harm != "gone")
    put(cache, run(0, 20))
    cache.close(10)
    assert found(opened(), run(0, 20)) == 20


def test_an_older_format_is_set_aside(opened: Opened, folder: Path) -> None:
    first = opened()
    put(first, run(0, 8))
    first.close(10)
    for path in files(folder):
        content = path.read_bytes()
        path.write_bytes(MAGIC + (0).to_bytes(4, "little") + content[8:])
    for suffix in ("", "-wal", "-shm"):
        (folder / f"index.sqlite3{suffix}").unlink(missing_ok=True)
    cache = opened()
    assert found(cache, run(0, 8)) == 0
    assert store_of(cache).n_set_aside == 2


def test_few_damaged_files_are_kept(opened: Opened, folder: Path) -> None:
    opened().close(10)
    for n in range(3 * MAX_ASIDE):
        (folder / file_name(n.to_bytes(32, "big"))).write_bytes(b"nothing of ours")
    cache = opened()
    assert store_of(cache).n_set_aside == 3 * MAX_ASIDE
    assert len(list((folder / "damaged").iterdir())) == MAX_ASIDE


def test_a_payload_that_the_codec_does_not_know_is_set_aside(opened: Opened, folder: Path) -> None:
    class OldCodec(SumCodec):
        def pack(self, payload: Sum) -> object:  # type: ignore[override]
            return {"type": "uint32"}, [b"old"]

    store = BlockStore(folder, NO_FLOOR)
    old = BlockCache(PLENTY, store, OldCodec(), n_tokens=4)  # type: ignore[arg-type]
    put(old, run(0, 8))
    old.close(10)
    cache = opened()
    assert found(cache, run(0, 8)) == 0
    assert store_of(cache).n_set_aside == 1


@pytest.mark.parametrize("harm", ["gone", "garbage", "of another version", "not ours"])
def test_an_index_that_is_lost_is_made_again(opened: Opened, folder: Path, harm: str) -> None:
    first = opened()
    put(first, run(0, 20), "system")
    first.close(10)
    index = folder / "index.sqlite3"
    if harm == "garbage":
        index.write_bytes(os.urandom(5000))
    elif harm == "gone":
        index.unlink()
    else:
        with sqlite3.connect(index) as connection:
            connection.execute("PRAGMA user_version = 99" if harm == "of another version" else "DROP TABLE file")
        connection.close()
    cache = opened()
    assert found(cache, run(0, 20)) == 20
    assert cache.ls()[0]["request_class"] == "system"
    cache.close(10)
    assert found(opened(), run(0, 20)) == 20


def test_files_that_the_index_does_not_know_are_found_and_temporary_ones_go(opened: Opened, folder: Path) -> None:
    first = opened()
    put(first, run(0, 8))
    first.close(10)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    second = opened()
    put(second, run(0, 20))
    second.close(10)
    (folder / "index.sqlite3").write_bytes(kept["index.sqlite3"])
    (folder / f".{'ab' * 32}.tmp").write_bytes(b"half")
    cache = opened()
    assert found(cache, run(0, 20)) == 20
    assert not list(folder.glob(".*.tmp"))


def test_the_least_recently_used_files_make_room_descendants_first(opened: Opened, folder: Path) -> None:
    now = 1e9
    size = 400
    limits = StoreLimits(budget_bytes=10 * size, keep_free_bytes=0)
    cache = opened(limits, clock=lambda: now)
    for start in range(0, 2000, 100):
        now += 60
        put(cache, [*run(0, 4), *run(100 + start, 4)])
        cache.flush(10)
    assert store_of(cache).file_bytes <= limits.budget_bytes
    assert store_of(cache).n_evicted > 0
    cache.check_integrity()
    cache.close(10)
    again = opened(limits, clock=lambda: now)
    assert found(again, [*run(0, 4), *run(2000, 4)]) == 8
    assert found(again, [*run(0, 4), *run(100, 4)]) == 4


def test_what_nobody_uses_expires_but_pins_stay(opened: Opened) -> None:
    now = 1e9
    first = opened(clock=lambda: now)
    put(first, run(0, 8))
    put(first, run(100, 8))
    assert first.pin(first.match(MODEL, ids_of(run(100, 8))).pieces[-1].block.name.hex())
    first.close(10)
    now += 31 * DAY_S
    cache = opened(clock=lambda: now)
    assert found(cache, run(0, 8)) == 0
    assert found(cache, run(100, 8)) == 8
    assert [line["is_pinned"] for line in cache.ls()] == [True]
    assert store_of(cache).n_expired == 2


def test_use_is_remembered_over_a_restart(opened: Opened) -> None:
    now = 1e9
    first = opened(clock=lambda: now)
    put(first, run(0, 8))
    put(first, run(100, 8))
    now += 20 * DAY_S
    assert found(first, run(0, 8)) == 8
    first.close(10)
    now += 20 * DAY_S
    cache = opened(clock=lambda: now)
    assert (found(cache, run(0, 8)), found(cache, run(100, 8))) == (8, 0)


def test_a_day_has_its_limit_and_side_requests_have_half_of_it(opened: Opened, folder: Path) -> None:
    now = 1e9
    limits = StoreLimits(daily_bytes=4000, keep_free_bytes=0)
    cache = opened(limits, clock=lambda: now)
    for start in range(0, 2000, 100):
        put(cache, run(start, 4), "side")
        cache.flush(10)
    n_side = len(files(folder))
    for start in range(5000, 9000, 100):
        put(cache, run(start, 4))
        cache.flush(10)
    n_first = len(files(folder))
    assert 0 < n_side < n_first
    assert 3000 < store_of(cache).written_today_bytes < 4500
    cache.close(10)
    again = opened(limits, clock=lambda: now)
    put(again, run(10_000, 4))
    again.flush(10)
    assert len(files(folder)) == n_first
    now += DAY_S
    put(again, run(20_000, 4))
    again.flush(10)
    assert len(files(folder)) > n_first


def test_a_second_process_only_reads_until_the_first_is_gone(opened: Opened, folder: Path) -> None:
    first = opened()
    put(first, run(0, 8))
    first.flush(10)
    second = opened(check_s=0.01)
    assert store_of(second).problem == "another process writes there"
    assert found(second, run(0, 8)) == 8
    put(second, run(100, 8))
    assert not second.flush(10)
    assert not second.pin("00")
    put(first, run(50, 8))
    first.close(10)
    wait_until(lambda: not store_of(second).problem, "the second writes")
    assert found(second, run(50, 8)) == 8, "and finds what the first has written since"
    assert second.flush(10)
    second.close(10)
    assert found(opened(), run(100, 8)) == 8


def test_a_disk_that_is_full_costs_nothing_but_the_files(
    opened: Opened, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(StoreLimits(keep_free_bytes=1 << 60))
    for start in (0, 100, 200):
        put(cache, run(start, 8))
        cache.flush(10)
    assert [found(cache, run(start, 8)) for start in (0, 100, 200)] == [8, 8, 8]
    assert files(folder) == []
    assert store_of(cache).n_failed > 0
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1
    cache.check_integrity()


def test_a_folder_that_is_not_only_ours_is_not_used(opened: Opened, folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    cache = opened()
    put(cache, run(0, 8))
    assert found(cache, run(0, 8)) == 8
    assert cache.flush(1) is False
    assert "open to others" in store_of(cache).problem
    assert list(folder.iterdir()) == []


def test_clear_and_remove_reach_the_disk(opened: Opened, folder: Path) -> None:
    cache = opened()
    put(cache, run(0, 8))
    put(cache, [*run(0, 4), *run(50, 8)])
    put(cache, run(100, 8))
    cache.flush(10)
    first = cache.match(MODEL, ids_of(run(0, 4))).pieces[0].block.name.hex()
    assert cache.remove(first) == 4
    wait_until(lambda: len(files(folder)) == 2, "the files are gone")
    (folder / file_name(b"x" * 32)).write_bytes(b"garbage")
    assert cache.clear() >= 2
    assert files(folder) == []
    cache.close(10)
    assert opened().statistics().n_blocks == 0


def test_a_hit_that_loses_its_files_before_it_is_loaded_is_empty(opened: Opened) -> None:
    first = opened()
    put(first, run(0, 12))
    for end in (5, 12):
        first.put_snapshot(MODEL, ids_of(run(0, end)), snapshot_of(run(0, end)))
    first.close(10)
    cache = opened()
    with cache.match(MODEL, ids_of(run(0, 12)), needs_snapshot=True) as hit:
        assert hit.n_tokens == 12
        cache.clear()
        assert cache.load(hit)
        assert hit.n_tokens == 0
    cache.check_integrity()


def test_a_snapshot_that_is_damaged_leaves_the_one_before_it(opened: Opened, folder: Path) -> None:
    first = opened()
    put(first, run(0, 12))
    for end in (5, 11):
        first.put_snapshot(MODEL, ids_of(run(0, end)), snapshot_of(run(0, end)))
    hit = first.match(MODEL, ids_of(run(0, 12)), needs_snapshot=True)
    assert hit.kept
    first.close(10)
    path = folder / file_name(hit.kept.name)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    cache = opened()
    assert found(cache, run(0, 12), needs_snapshot=True) == 5
    assert found(cache, run(0, 12)) == 12
    cache.check_integrity()


def verified(cache: BlockCache) -> dict[str, int]:
    return list(cache.verify())[-1]


def test_verify_reads_everything(opened: Opened, folder: Path) -> None:
    cache = opened()
    put(cache, run(0, 40))
    cache.flush(10)
    assert verified(cache) == {"files": 10, "sound": 10, "damaged": 0, "bytes": 40 * TOKEN_BYTES, "faults": 0}
    path = files(folder)[0]
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert verified(cache)["damaged"] == 1
    assert found(cache, run(0, 40)) == 40, "it is in memory still"
    cache.flush(10)
    assert verified(cache) == {"files": 10, "sound": 10, "damaged": 0, "bytes": 40 * TOKEN_BYTES, "faults": 0}
    cache.check_integrity()


def test_what_goes_while_files_are_verified_is_not_called_damaged(
    opened: Opened, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "STEP_BYTES", 1)
    cache = opened()
    put(cache, run(0, 400))
    cache.flush(10)
    steps = cache.verify()
    assert next(steps)["files"] == 1
    cache.clear()
    last = list(steps)[-1]
    assert (last["damaged"], last["files"] < 50) == (0, True)
    put(cache, run(0, 40))
    cache.flush(10)
    files(folder)[3].unlink()
    assert verified(cache)["damaged"] == 1, "nobody of ours has removed it"


def test_models_keep_their_names_over_a_restart_until_they_have_another(opened: Opened) -> None:
    first = opened()
    first.name_model(MODEL, "tiny")
    put(first, run(0, 8))
    first.close(10)
    again = opened()
    found(again, run(0, 8))
    assert [line["model"] for line in again.ls()] == ["tiny"]
    again.name_model(MODEL, "renamed")
    again.close(10)
    other = opened()
    other.name_model(MODEL, "renamed")
    found(other, run(0, 8))
    assert [line["model"] for line in other.ls()] == ["renamed"]


def test_what_waits_to_be_written_can_be_read(folder: Path) -> None:
    may_go_on = threading.Event()

    class SlowStore(BlockStore):
        def _write_batch(self, catalogue: Catalogue, jobs: Sequence[Job]) -> None:
            may_go_on.wait(60)
            super()._write_batch(catalogue, jobs)

    store = SlowStore(folder, NO_FLOOR)
    cache = BlockCache(8 * TOKEN_BYTES, store, SumCodec(), n_tokens=4)
    put(cache, run(0, 40))
    assert files(folder) == []
    assert found(cache, run(0, 40)) == 40
    may_go_on.set()
    cache.close(10)
    assert len(files(folder)) == 10


def test_large_blocks_come_back_whole(opened: Opened) -> None:
    states = np.random.default_rng(1).integers(0, 1 << 63, (4, 4, 1 << 16), dtype=np.uint64)
    first = opened(budget=1 << 24)
    tokens = ids_of(run(0, 16))
    first.put(MODEL, tokens, 0, lambda start, end: Sum(states[start // 4].reshape(-1)))
    first.close(10)
    cache = opened(budget=1 << 24)
    with cache.match(MODEL, tokens) as hit:
        cache.load(hit)
        for (block, _), state in zip(hit.pieces, states, strict=True):
            assert isinstance(block.payload, Sum)
            assert (block.payload.sums == state.reshape(-1)).all()
