"""What is stored is what the model computes: said so where it holds, and where it does not."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import mlx.core as mx
import pytest

from anyclaude.engine.cache.blocks import N_TOKENS, BlockCache
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.model import adapter
from anyclaude.engine.model.models import ResidentModel
from anyclaude.engine.model.state import StateCodec, StatePayload
from anyclaude.engine.verify import MOST_TOKENS, parity, verification
from tests.support.models import CUTTABLE, FAMILIES, Family, random_model
from tests.support.rows import Bench, as_ids, some_ids


def other_heads(keys: mx.array) -> mx.array:
    return keys[:, ::-1]


def other_tokens(keys: mx.array) -> mx.array:
    return mx.concatenate([keys[:, :, 1:], keys[:, :, :1]], axis=2)


def a_little_more(keys: mx.array) -> mx.array:
    return keys + 0.05


def no_numbers(keys: mx.array) -> mx.array:
    return keys * float("nan")


def without_end(keys: mx.array) -> mx.array:
    return keys * float("inf")


CHANGES = (a_little_more, other_heads, other_tokens, no_numbers, without_end, mx.zeros_like)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: random_model(root / family, family) for family in FAMILIES}


def tamper(bench: Bench, model: ResidentModel, change: Callable[[mx.array], mx.array], place: int = -1) -> None:
    """With the state of one block."""
    ids = bench.cache.latest(model.fingerprint, MOST_TOKENS)
    with bench.cache.match(model.fingerprint, ids) as hit:
        block = hit.pieces[place].block
        stored = cast("StatePayload", block.payload)
        block.payload = StatePayload((change(stored.arrays[0]), *stored.arrays[1:]))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_was_read_and_written_in_turns_is_the_same_as_read_at_once(
    folders: dict[Family, Path], family: Family
) -> None:
    bench = Bench()
    model = bench.model(folders[family])
    first = bench.generate(model, some_ids(300), head_end=200, ends=(200,))
    bench.generate(model, [*some_ids(300), *first.generated, *some_ids(90, 1)], head_end=200, ends=(200, 308))
    told = parity(bench.cache, model)
    assert told.holds
    assert told.tokens == (405 if family in CUTTABLE else 397), "all but the last, or to the last snapshot before it"
    assert 0 <= told.largest_share <= told.tolerance == 1e-3
    assert told.largest_share < 1e-4
    assert told.equal_tokens
    bench.cache.check_integrity()


@pytest.mark.parametrize("family", FAMILIES)
def test_of_a_long_prompt_the_beginning_is_tried(folders: dict[Family, Path], family: Family) -> None:
    """Where no snapshot lies in it, the blocks are compared all the same."""
    bench = Bench()
    model = bench.model(folders[family])
    bench.generate(model, some_ids(900))
    told = parity(bench.cache, model)
    assert (told.tokens, told.holds, told.equal_tokens) == (MOST_TOKENS - 1, True, True)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", [0, -1])
def test_a_block_that_was_tampered_with_is_found(
    folders: dict[Family, Path], change: Callable[[mx.array], mx.array], place: int
) -> None:
    bench = Bench()
    model = bench.model(folders["qwen3"])
    bench.generate(model, some_ids(400))
    assert parity(bench.cache, model).holds
    tamper(bench, model, change, place)
    told = parity(bench.cache, model)
    assert not told.holds
    assert told.largest_share > told.tolerance


def test_a_snapshot_that_was_tampered_with_is_found(folders: dict[Family, Path]) -> None:
    bench = Bench()
    model = bench.model(folders["qwen3_next"])
    bench.generate(model, some_ids(400), head_end=300, ends=(300,))
    assert parity(bench.cache, model).holds
    ids = bench.cache.latest(model.fingerprint, MOST_TOKENS)
    with bench.cache.match(model.fingerprint, ids, needs_snapshot=True, most=len(ids) - 1) as hit:
        assert hit.kept
        stored = cast("StatePayload", hit.snapshot)
        hit.kept.payload = StatePayload(tuple(-array for array in stored.arrays), stored.form)
    assert not parity(bench.cache, model).holds


@pytest.mark.parametrize("family", CUTTABLE)
def test_sixteen_bits_are_rounded_otherwise_and_still_tell_what_is_wrong(tmp_path: Path, family: Family) -> None:
    bench = Bench()
    model = bench.model(random_model(tmp_path / "model", family, dtype="bfloat16"))
    first = bench.generate(model, some_ids(300), 40)
    bench.generate(model, [*some_ids(300), *first.generated, *some_ids(20, 1)])
    told = parity(bench.cache, model)
    assert told.holds
    assert told.tolerance == 0.1
    tamper(bench, model, other_heads)
    assert not parity(bench.cache, model).holds


def test_what_is_on_disk_only_is_read_for_it(folders: dict[Family, Path], tmp_path: Path) -> None:
    first = Bench(BlockCache(1 << 30, BlockStore(tmp_path / "blocks"), StateCodec()))
    first.generate(first.model(folders["qwen3"]), some_ids(400))
    first.cache.close()
    bench = Bench(BlockCache(1 << 30, BlockStore(tmp_path / "blocks"), StateCodec()))
    bench.cache.tend()
    told = parity(bench.cache, bench.model(folders["qwen3"]))
    assert (told.holds, told.tokens) == (True, 407)
    assert bench.cache.statistics().n_loaded == 2
    bench.cache.close()


def test_each_model_is_a_step_of_its_own_and_one_that_was_not_used_is_said_to_be(folders: dict[Family, Path]) -> None:
    bench = Bench()
    used, unused = bench.model(folders["qwen3"]), bench.model(folders["llama"])
    bench.generate(used, some_ids(N_TOKENS))
    *steps, answer = verification(bench.cache, bench.models)
    assert steps == [None, None, None]
    assert answer is not None
    assert answer["faults"] == 0
    assert {told["model"]: (told["tokens"] > 0, told["holds"]) for told in answer["parity"]} == {
        used.folder.name: (True, True),
        unused.folder.name: (False, True),
    }


def test_without_a_model_there_is_no_parity() -> None:
    bench = Bench()
    assert list(verification(bench.cache, bench.models)) == [None, {"faults": 0, "parity": []}]


def test_a_path_of_one_token_is_nothing_to_compare(folders: dict[Family, Path]) -> None:
    bench = Bench()
    model = bench.model(folders["qwen3"])
    layout, caches = model.layout, _read(model, [5])
    bench.cache.put(model.fingerprint, as_ids([5]), 0, lambda start, end: layout.cut(caches, 0, start, end))
    assert (parity(bench.cache, model).tokens, parity(bench.cache, model).equal_tokens) == (0, None)


def _read(model: ResidentModel, ids: list[int]) -> list[adapter.LayerCache]:
    caches = adapter.new_caches(model.model)
    model.model(mx.array(ids)[None], cache=caches)
    return caches
