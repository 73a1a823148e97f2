"""With the cache and without, a model says the same: equal greedy tokens, and log-probabilities within float tolerance.

The model without a cache is mlx-lm's own prefill and decode, one row at a time.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.limits import StoreLimits
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.generation.row import Row
from anyclaude.engine.model import adapter
from anyclaude.engine.model.models import ResidentModel
from tests.support.models import CUTTABLE, FAMILIES, Family, random_model
from tests.support.rows import Bench, codec, some_ids

TOLERANCE = 2e-4
N_OUT = 6


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: random_model(root / family, family) for family in FAMILIES}


class Listening:
    """A greedy sampler that keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray[Any, np.dtype[np.float32]]] = []

    def __call__(self, logprobs: mx.array) -> mx.array:
        self.seen.append(np.array(logprobs[0].astype(mx.float32)))
        return mx.argmax(logprobs, axis=-1)


def uncached(model: ResidentModel, ids: Sequence[int], n_out: int) -> tuple[list[int], list[Any]]:
    caches = adapter.new_caches(model.model)
    logits = model.model(mx.array(list(ids))[None], cache=caches)[:, -1, :]
    tokens: list[int] = []
    chances: list[Any] = []
    for _ in range(n_out):
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        chances.append(np.array(logprobs[0].astype(mx.float32)))
        tokens.append(int(cast("int", mx.argmax(logprobs, axis=-1).item())))
        logits = model.model(mx.array([[tokens[-1]]]), cache=caches)[:, -1, :]
    return tokens, chances


def listening(bench: Bench, model: ResidentModel, ids: Sequence[int], n_out: int = N_OUT, **fields: Any) -> Row:
    row = bench.row(model, ids, n_out, **fields)
    row.sampler = Listening()
    return row


def assert_same(model: ResidentModel, row: Row) -> None:
    tokens, chances = uncached(model, [int(token) for token in row.ids], row.limit)
    assert row.generated == tokens
    heard = cast("Listening", row.sampler).seen
    for ours, theirs in zip(heard, chances, strict=False):
        assert float(np.abs(ours - theirs).max()) < TOLERANCE


def run(bench: Bench, *rows: Row) -> None:
    for row in rows:
        bench.scheduler.submit(row)
    bench.finish()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_follow_up_reads_only_what_is_new_and_says_the_same(folders: dict[Family, Path], family: Family) -> None:
    bench = Bench()
    model = bench.model(folders[family])
    first = listening(bench, model, some_ids(700), head_end=300, ends=(300,))
    run(bench, first)
    follow = listening(bench, model, [*some_ids(700), *first.generated, *some_ids(40, 1)], head_end=300, ends=(300,))
    run(bench, follow)
    assert (follow.n_cached, follow.n_prefilled) == (700 + N_OUT, 40)
    assert_same(model, first)
    assert_same(model, follow)


@pytest.mark.parametrize("family", FAMILIES)
def test_another_session_shares_the_head_to_the_token(folders: dict[Family, Path], family: Family) -> None:
    bench = Bench()
    model = bench.model(folders[family])
    head = some_ids(333)
    run(bench, listening(bench, model, [*head, *some_ids(100, 1)], head_end=333, ends=(333,)))
    other = listening(bench, model, [*head, *some_ids(200, 2)], head_end=333, ends=(333,))
    run(bench, other)
    assert (other.n_cached, other.n_prefilled) == (333, 200)
    assert_same(model, other)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_that_is_asked_again_reads_its_last_token_only(folders: dict[Family, Path], family: Family) -> None:
    bench = Bench()
    model = bench.model(folders[family])
    rows = [listening(bench, model, some_ids(600)) for _ in range(2)]
    for row in rows:
        run(bench, row)
        assert_same(model, row)
    assert (rows[1].n_cached, rows[1].n_prefilled) == (599, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_hit_other_and_miss_in_one_batch_say_the_same_as_alone(folders: dict[Family, Path], family: Family) -> None:
    bench = Bench()
    model = bench.model(folders[family])
    run(bench, listening(bench, model, some_ids(520)))
    rows = [
        listening(bench, model, [*some_ids(520), *some_ids(9, 1)], 12),
        listening(bench, model, some_ids(440, 2), 9),
        listening(bench, model, [*some_ids(256), *some_ids(300, 3)], 7),
    ]
    run(bench, *rows)
    assert bench.copied.joined
    for row in rows:
        assert_same(model, row)


@pytest.mark.parametrize("family", FAMILIES)
def test_state_that_comes_back_from_disk_says_the_same(
    folders: dict[Family, Path], tmp_path: Path, family: Family
) -> None:
    def on_disk() -> Bench:
        return Bench(BlockCache(1 << 30, BlockStore(tmp_path / "blocks", StoreLimits(keep_free_bytes=0)), codec()))

    before = on_disk()
    first = listening(before, before.model(folders[family]), some_ids(700), head_end=300, ends=(300,))
    run(before, first)
    before.cache.close()
    again = on_disk()
    model = again.model(folders[family])
    follow = listening(again, model, [*some_ids(700), *first.generated, *some_ids(40, 1)], head_end=300, ends=(300,))
    other = listening(again, model, [*some_ids(300), *some_ids(90, 2)], head_end=300, ends=(300,))
    run(again, follow, other)
    assert again.cache.statistics().n_loaded
    assert (follow.n_cached, other.n_cached) == (700 + N_OUT, 300)
    assert_same(model, follow)
    assert_same(model, other)
    again.cache.close()


def test_after_eviction_it_is_computed_again_and_the_same(folders: dict[Family, Path]) -> None:
    bench = Bench(BlockCache(600_000))
    model = bench.model(folders["qwen3"])
    for seed in (0, 1, 2, 0):
        row = listening(bench, model, some_ids(500, seed))
        run(bench, row)
        assert_same(model, row)
    assert bench.cache.statistics().n_evicted


@pytest.mark.parametrize("family", CUTTABLE)
def test_bfloat16_gives_equal_tokens(tmp_path: Path, family: Family) -> None:
    bench = Bench()
    model = bench.model(random_model(tmp_path / "model", family, dtype="bfloat16"))
    first = listening(bench, model, some_ids(512))
    run(bench, first)
    again = listening(bench, model, some_ids(512))
    run(bench, again)
    assert again.n_prefilled == 1
    assert again.generated == first.generated


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_asked_in_whatever_order(folders: dict[Family, Path], data: st.DataObject) -> None:
    """Prompts that share prefixes of any length, alone or side by side, with little memory or much."""
    family: Family = data.draw(st.sampled_from(FAMILIES))
    bench = Bench(BlockCache(data.draw(st.sampled_from((0, 700_000, 1 << 30)))))
    model = bench.model(folders[family])
    asked: list[list[int]] = [[]]
    for turn in range(data.draw(st.integers(2, 4))):
        rows: list[Row] = []
        for n in range(data.draw(st.integers(1, 3))):
            before = data.draw(st.sampled_from(asked))
            shared = before[: data.draw(st.integers(0, len(before)))]
            ids = [*shared, *some_ids(data.draw(st.integers(1, 300)), seed=10 * turn + n)]
            head_end = data.draw(st.integers(0, len(ids) - 1))
            rows.append(listening(bench, model, ids, head_end=head_end, ends=(head_end,) if head_end else ()))
        run(bench, *rows)
        for row in rows:
            assert_same(model, row)
            assert row.n_cached + row.n_prefilled == row.n_prompt
            asked.append([*(int(token) for token in row.ids), *row.generated])
    bench.cache.check_integrity()
