"""Who begins when there is little memory, what makes room for a row, and blocks that come from disk in between."""

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.generation.memory import EngineMemory
from anyclaude.engine.generation.prefill import CHUNK
from anyclaude.engine.generation.row import Row
from anyclaude.engine.generation.scheduler import Scheduler
from anyclaude.engine.model.models import ResidentModel
from anyclaude.engine.model.state import ROOM, StateCodec
from tests.support.models import Family, random_model
from tests.support.rows import Bench, some_ids
from tests.support.stepping import ahead, alone, began, step_until, told, untimed

TOKEN_BYTES = 2 * 2 * 2 * 32 * 4  # keys and values, layers, heads, width, float32
NOBODY: frozenset[Path] = frozenset()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    return {"qwen3": random_model(tmp_path_factory.mktemp("models") / "qwen3", "qwen3")}


class ScriptedMemory:
    """Room is what the test says; who asked, in order."""

    def __init__(self) -> None:
        self.is_full = False
        self.asked: list[int] = []
        self.made: list[int] = []

    def has_room(self, row: Row) -> bool:
        self.asked.append(row.id)
        return not self.is_full

    def make_room(self, row: Row) -> None:
        self.made.append(row.id)


@pytest.fixture
def tight() -> tuple[Bench, ScriptedMemory]:
    bench, memory = untimed(), ScriptedMemory()
    bench.scheduler = Scheduler(
        bench.cache,
        bench.copied,
        report=bench.reports.append,
        ended=bench.done.append,
        clock=lambda: 0.0,
        memory=memory,
    )
    return bench, memory


def test_a_row_without_room_waits_until_it_is_alone(
    tight: tuple[Bench, ScriptedMemory], folders: dict[Family, Path]
) -> None:
    bench, memory = tight
    model = bench.model(folders["qwen3"])
    first = bench.submit(model, some_ids(40), 10)
    step_until(bench, lambda: first.generated)
    memory.is_full = True
    second = bench.submit(model, some_ids(50, 1), 4)
    step_until(bench, lambda: len(first.generated) == 9)
    assert not second.is_begun
    assert set(memory.asked) == {second.id}
    bench.finish()
    assert bench.done == [first, second]
    assert memory.made == [first.id, second.id]


def test_a_row_begins_beside_others_once_there_is_room(
    tight: tuple[Bench, ScriptedMemory], folders: dict[Family, Path]
) -> None:
    bench, memory = tight
    model = bench.model(folders["qwen3"])
    first = bench.submit(model, some_ids(40), 30)
    step_until(bench, lambda: first.generated)
    memory.is_full = True
    second = bench.submit(model, some_ids(50, 1), 4)
    for _ in range(3):
        bench.scheduler.step()
    assert not second.is_begun
    memory.is_full = False
    bench.scheduler.step()
    assert second.is_begun
    bench.finish()
    assert memory.made == [first.id]


def test_nobody_begins_before_one_that_waits_for_room_but_who_has_begun_goes_on(
    tight: tuple[Bench, ScriptedMemory], folders: dict[Family, Path]
) -> None:
    bench, memory = tight
    model = bench.model(folders["qwen3"])
    agent = bench.submit(model, some_ids(CHUNK + 50), 3, request_class="agent")
    bench.scheduler.step()
    memory.is_full = True
    main, side = bench.submit(model, some_ids(50, 1), 3), bench.submit(model, some_ids(9, 2), 3, request_class="side")
    step_until(bench, lambda: agent.generated)
    assert not main.is_begun
    assert set(memory.asked) == {main.id}
    bench.finish()
    assert bench.done[0] is agent
    assert began(bench) == [agent.id, main.id, side.id]


def test_what_is_ahead_of_the_user_gives_its_memory_back_to_whoever_needs_it(
    tight: tuple[Bench, ScriptedMemory], folders: dict[Family, Path], tmp_path: Path
) -> None:
    bench, memory = tight
    model, other = bench.model(folders["qwen3"]), bench.model(random_model(tmp_path / "other", "qwen3", seed=1))
    prepared = ahead(bench, other, some_ids(CHUNK + 50))
    bench.scheduler.step()
    memory.is_full = True
    row = bench.generate(model, some_ids(50, 1), 3)
    assert bench.done == [row]
    assert memory.made == [prepared.id, row.id]
    assert told(bench)[0].value["n_read"] == CHUNK
    assert not prepared.caches


def memory_of(bench: Bench, n_bytes: int, *in_use: ResidentModel) -> EngineMemory:
    return EngineMemory(n_bytes, bench.cache, bench.models, lambda: frozenset(model.folder for model in in_use))


def test_a_row_fits_to_the_byte(folders: dict[Family, Path]) -> None:
    """Its state with the room for an answer, twice: that is the peak of a join."""
    bench = untimed()
    model = bench.model(folders["qwen3"])
    row = bench.row(model, some_ids(1_000))
    needed = mx.get_active_memory() + 2 * TOKEN_BYTES * (1_000 + ROOM)
    assert memory_of(bench, needed, model).has_room(row)
    assert not memory_of(bench, needed - 1, model).has_room(row)


@pytest.mark.parametrize(("family", "whole_bytes"), [("qwen3_next", 11_264), ("gemma3", 4 * 2 * 64 * 32 * 4)])
def test_state_that_cannot_be_cut_is_counted_whole(tmp_path: Path, family: Family, whole_bytes: int) -> None:
    """Recurrent: 3 places of 128 channels and 4 heads of 16 by 16, in two layers. Sliding: keys and values of 64 tokens
    in two layers of two heads."""
    bench = untimed()
    model = bench.model(random_model(tmp_path / "model", family))
    bench.generate(model, some_ids(300))
    assert model.layout.row_bytes(1_000) == 1_000 * TOKEN_BYTES + whole_bytes


def test_blocks_are_given_up_as_far_as_it_takes_and_no_further(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    for seed in range(4):
        bench.generate(model, some_ids(505, seed), 7)
    row = bench.row(model, some_ids(100))
    needed = 2 * TOKEN_BYTES * (100 + ROOM)
    before, block = bench.cache.statistics(), 256 * TOKEN_BYTES
    assert before.held_bytes == 8 * block
    limit = mx.get_active_memory() + needed - 2 * block - 1
    memory = memory_of(bench, limit, model)
    memory.make_room(row)
    after = bench.cache.statistics()
    assert (after.held_bytes, after.budget_bytes) == (5 * block, before.budget_bytes)
    assert memory.has_room(row)
    assert bench.generate(model, some_ids(505, 3), 7).n_cached == 504


def test_models_that_nobody_uses_go_after_the_blocks(folders: dict[Family, Path], tmp_path: Path) -> None:
    bench = untimed()
    model, idle = bench.model(folders["qwen3"]), bench.model(random_model(tmp_path / "idle", "qwen3", seed=1))
    bench.generate(model, some_ids(505), 7)
    row = bench.row(model, some_ids(100))
    needed = 2 * TOKEN_BYTES * (100 + ROOM)
    held, weights = bench.cache.statistics().held_bytes, idle.nbytes
    limit = mx.get_active_memory() + needed - held - weights // 2
    del idle
    memory = memory_of(bench, limit, model)
    memory.make_room(row)
    assert bench.cache.statistics().held_bytes == 0
    assert [each.folder for each in bench.models] == [model.folder]
    assert memory.has_room(row)


def test_what_cannot_fit_leaves_the_model_that_it_is_for(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    memory_of(bench, 0, model).make_room(bench.row(model, some_ids(100)))
    assert list(bench.models) == [model]


@pytest.fixture
def on_disk(folders: dict[Family, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A prompt of 1,400 tokens is there, in six blocks, on disk only; while something writes one is read a step."""
    monkeypatch.setattr("anyclaude.engine.generation.scheduler.SMALL_LOAD_BYTES", 1)
    before = disk_bench(tmp_path)
    before.generate(before.model(folders["qwen3"]), some_ids(1_400))
    before.cache.close()
    after = disk_bench(tmp_path)
    yield after
    after.cache.close()


def disk_bench(folder: Path) -> Bench:
    return Bench(BlockCache(1 << 30, BlockStore(folder / "blocks"), StateCodec()), clock=lambda: 0.0)


def test_blocks_come_from_disk_between_the_steps_of_who_writes(on_disk: Bench, folders: dict[Family, Path]) -> None:
    model = on_disk.model(folders["qwen3"])
    writing = on_disk.submit(model, some_ids(20, 1), 40)
    step_until(on_disk, lambda: writing.generated)
    n_before = len(writing.generated)
    row = on_disk.submit(model, some_ids(1_400))
    step_until(on_disk, lambda: row.is_begun)
    assert len(writing.generated) - n_before == 6
    on_disk.finish()
    assert (row.n_cached, row.n_prefilled) == (1_399, 1)
    assert row.generated == alone(model, some_ids(1_400), 8)


def test_cancelled_while_blocks_come_from_disk_nothing_stays_leased(
    on_disk: Bench, folders: dict[Family, Path]
) -> None:
    model = on_disk.model(folders["qwen3"])
    writing = on_disk.submit(model, some_ids(20, 1), 40)
    step_until(on_disk, lambda: writing.generated)
    row = on_disk.submit(model, some_ids(1_400))
    for _ in range(3):
        on_disk.scheduler.step()
    assert not row.is_begun
    assert on_disk.cache.statistics().n_leased == 6
    on_disk.scheduler.cancel(row.id)
    assert on_disk.cache.statistics().n_leased == 0
    assert on_disk.cache.statistics().n_loaded == 3


def test_after_a_fault_nothing_stays_leased_and_the_next_request_is_served(
    on_disk: Bench, folders: dict[Family, Path]
) -> None:
    model = on_disk.model(folders["qwen3"])
    writing = on_disk.submit(model, some_ids(20, 1), 40)
    step_until(on_disk, lambda: writing.generated)
    reading = on_disk.submit(model, some_ids(1_400))
    waiting = ahead(on_disk, model, some_ids(30, 2))
    on_disk.scheduler.step()
    assert on_disk.cache.statistics().n_leased
    assert on_disk.scheduler.drop_all() == [reading.id, waiting.id, writing.id], "each of them is answered"
    assert on_disk.scheduler.is_idle
    assert on_disk.cache.statistics().n_leased == 0
    assert on_disk.generate(model, some_ids(1_400)).n_cached == 1_399
