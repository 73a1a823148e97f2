"""State cut, kept, put together and joined: how many bytes are copied each time, and which ones stay alive."""

from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import LayerCache, Live
from anyclaude.engine.model.models import ResidentModel
from anyclaude.engine.model.state import ROOM, Copied, Layout
from tests.support.models import CUTTABLE, FAMILIES, WINDOW, Family, random_model
from tests.support.rows import Bench, some_ids
from tests.support.stepping import step_until, untimed

TOKEN_BYTES = 2 * 2 * 2 * 32 * 4  # keys and values, layers that can be cut, heads, width, float32
RECURRENT_BYTES = 2 * (3 * 128 + 4 * 16 * 16) * 4  # layers, places by channels and heads by width by width, float32
WINDOW_BYTES = 2 * 2 * 2 * WINDOW * 32 * 4  # layers, keys and values, heads, tokens, width, float32
WHOLE_BYTES: dict[Family, int] = {
    "qwen3": 0,
    "llama": 0,
    "qwen3_next": RECURRENT_BYTES,
    "qwen3_5": RECURRENT_BYTES,
    "gemma3": WINDOW_BYTES,
    "gpt_oss": WINDOW_BYTES,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, ResidentModel]:
    root, bench = tmp_path_factory.mktemp("models"), Bench()
    return {family: bench.model(random_model(root / family, family)) for family in FAMILIES}


def fresh(model: ResidentModel) -> Bench:
    """Whose counts of what this model copies begin at zero."""
    bench = untimed()
    model.layout.copied = bench.copied
    return bench


@pytest.mark.parametrize("family", FAMILIES)
def test_each_token_of_a_turn_is_stored_once_and_each_snapshot_is_whole(
    models: dict[Family, ResidentModel], family: Family
) -> None:
    bench = fresh(models[family])
    row = bench.generate(models[family], some_ids(700), 6, head_end=256, ends=(256,))
    n_snapshots = 3  # end of the head, of the prompt, of the answer
    n_again = 0 if family in CUTTABLE else 699 - 512  # the tail at the end of the prompt, for its snapshot
    assert bench.copied == Copied(
        stored=(row.n_tokens + n_again) * TOKEN_BYTES + n_snapshots * WHOLE_BYTES[family],
        grown=(256 if family not in CUTTABLE else 768) * TOKEN_BYTES,  # what the first chunk made room for
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hit_is_copied_once_and_a_follow_up_stores_from_the_last_whole_block_on(
    models: dict[Family, ResidentModel], family: Family
) -> None:
    bench = fresh(models[family])
    first = bench.generate(models[family], some_ids(700), 6)
    model, copied = models[family], bench.copied
    stored, grown = copied.stored, copied.grown
    bench.generate(model, [*some_ids(700), *first.generated, *some_ids(40, 1)], 6)
    assert copied.restored == 706 * TOKEN_BYTES + WHOLE_BYTES[family]
    n_stored = 752 - 512 if family in CUTTABLE else (745 - 512) + (752 - 512)  # also at the end of the prompt
    n_snapshots = 2
    assert copied.stored - stored == n_stored * TOKEN_BYTES + n_snapshots * WHOLE_BYTES[family]
    assert copied.grown == grown


@pytest.mark.parametrize("family", FAMILIES)
def test_a_join_a_growth_and_a_leave_copy_the_batch(models: dict[Family, ResidentModel], family: Family) -> None:
    bench = fresh(models[family])
    first, second = bench.submit(models[family], some_ids(300), 30), bench.submit(models[family], some_ids(200, 1), 4)
    step_until(bench, lambda: len(first.generated) == 3 or second.is_begun)
    copied = bench.copied
    step_until(bench, lambda: copied.joined)
    n = first.n_tokens  # the second is padded to the first
    grown = copied.grown
    assert copied.joined == 2 * (n * TOKEN_BYTES + WHOLE_BYTES[family])
    bench.scheduler.step()
    assert copied.grown - grown == 2 * n * TOKEN_BYTES  # a batch is made without room
    step_until(bench, lambda: bench.done)
    assert bench.done == [second]
    assert copied.left == (n + 256) * TOKEN_BYTES + WHOLE_BYTES[family]
    before = copied.grown
    bench.finish()
    assert copied.grown == before


def test_a_row_that_outgrows_its_room_is_copied_once(models: dict[Family, ResidentModel]) -> None:
    bench = fresh(models["qwen3"])
    bench.generate(models["qwen3"], some_ids(20), ROOM + 5)
    assert bench.copied.grown == (256 + 20 + ROOM) * TOKEN_BYTES


@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("n_heads", [1, 2])
def test_a_block_keeps_no_more_alive_than_its_own_bytes(n_heads: int, n_rows: int) -> None:
    """With one head a part of the positions is one piece of memory, which a view could share."""
    copied = Copied()
    rows = [filled(n_heads, 4_096) for _ in range(n_rows)]
    layout = Layout.of(rows[0], copied)
    caches = rows[0] if n_rows == 1 else adapter.joined(rows)
    mx.eval([cache.state for cache in caches])
    del rows
    with_state = mx.get_active_memory()
    payload = layout.cut(caches, n_rows - 1, 256, 512)
    assert payload.nbytes == copied.stored == 2 * n_heads * 256 * 64 * 4
    state_bytes = sum(cache.nbytes for cache in caches)
    del caches
    assert mx.get_active_memory() <= with_state - state_bytes + payload.nbytes + 65_536


@pytest.mark.parametrize("family", ["gemma3", "gpt_oss"])
def test_a_snapshot_after_a_chunk_holds_the_window_only(models: dict[Family, ResidentModel], family: Family) -> None:
    model = models[family]
    caches = adapter.new_caches(model.model)
    read(model, caches, some_ids(600))
    assert model.layout.snapshot(caches, 0).nbytes == WINDOW_BYTES


def filled(n_heads: int, n: int) -> list[LayerCache]:
    keys, values = (mx.random.normal((1, n_heads, n, 64)) for _ in range(2))
    mx.eval(keys, values)
    return [adapter.filled_cache(keys, values, n)]


def read(model: ResidentModel, caches: list[LayerCache], ids: list[int]) -> None:
    model.model(mx.array(ids)[None], cache=caches)
    mx.eval([cache.state for cache in caches])


def greedy(logprobs: mx.array) -> mx.array:
    return mx.argmax(logprobs, axis=-1)


def alone(model: ResidentModel, ids: list[int], n_out: int) -> list[int]:
    caches = adapter.new_caches(model.model)
    tokens: list[int] = []
    logits = model.model(mx.array(ids)[None], cache=caches)
    for _ in range(n_out):
        tokens.append(int(cast("int", greedy(logits[:, -1, :]).item())))
        logits = model.model(mx.array([tokens[-1:]]), cache=caches)
    return tokens


class Rows:
    """Rows in one batch, each with what it has written; what it would write alone is known beforehand."""

    def __init__(self, model: ResidentModel) -> None:
        self.model = model
        self.live = Live(model.model)
        self.prompts: dict[int, list[int]] = {}
        self.written: dict[int, list[int]] = {}

    def join(self, n_prompt: int) -> None:
        uid = len(self.prompts)
        ids = self.prompts[uid] = some_ids(n_prompt, seed=100 + uid)
        self.written[uid] = []
        caches = adapter.new_caches(self.model.model)
        if n_prompt > 1:
            read(self.model, caches, ids[:-1])
        self.live.add(uid, ids[-1], caches, greedy, ())

    def step(self) -> None:
        for uid, token in self.live.step():
            self.written[uid].append(token)

    def leave(self, place: int) -> None:
        """Its state, taken out of the batch, goes on as it would have done alone."""
        uid = self.live.uids[place]
        layout, caches = self.model.layout, self.live.caches
        n = len(self.prompts[uid]) + len(self.written[uid])
        blocks = [
            (layout.cut(caches, place, start, min(start + 100, n)), min(100, n - start)) for start in range(0, n, 100)
        ]
        snapshot = layout.snapshot(caches, place) if layout.needs_snapshots else None
        self.live.remove(uid)
        again = layout.restore(self.model.model, blocks if any(layout.cuttable) else [], snapshot, ROOM)
        expected = alone(self.model, self.prompts[uid], len(self.written[uid]) + 3)
        assert self.written[uid] == expected[:-3]
        assert alone_from(self.model, again, expected[-3]) == expected[-2:]


def alone_from(model: ResidentModel, caches: list[LayerCache], token: int) -> list[int]:
    tokens = [token]
    for _ in range(2):
        logits = model.model(mx.array([tokens[-1:]]), cache=caches)
        tokens.append(int(cast("int", greedy(logits[:, -1, :]).item())))
    return tokens[1:]


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_rows_that_join_and_leave_in_any_order_say_what_each_says_alone(
    models: dict[Family, ResidentModel], data: st.DataObject
) -> None:
    family: Family = data.draw(st.sampled_from(FAMILIES))
    rows = Rows(models[family])
    lengths = st.one_of(st.integers(1, 20), st.integers(WINDOW - 3, WINDOW + 3), st.integers(250, 260))
    for _ in range(data.draw(st.integers(3, 7))):
        what = data.draw(st.sampled_from(("join", "join", "step", "leave")))
        if what == "join" and len(rows.live) < 4:
            rows.join(data.draw(lengths))
        elif what == "leave" and len(rows.live):
            rows.leave(data.draw(st.integers(0, len(rows.live) - 1)))
        for _ in range(data.draw(st.integers(1, 8)) if len(rows.live) else 0):
            rows.step()
    while len(rows.live):
        rows.leave(0)


def other_kind(name: str) -> ResidentModel:
    """Models whose layers keep their state in other ways: all of it recurrent, or two caches in one layer."""
    import importlib

    shapes: dict[str, dict[str, Any]] = {
        "mamba2": {
            "num_heads": 4, "head_dim": 16, "vocab_size": 2_048, "hidden_size": 32, "intermediate_size": 64,
            "state_size": 16, "num_hidden_layers": 2, "layer_norm_epsilon": 1e-5, "conv_kernel": 4, "n_groups": 1,
            "use_bias": False, "use_conv_bias": True, "tie_word_embeddings": False, "time_step_limit": (0.0, 10.0),
            "time_step_rank": "auto",
        },
        "falcon_h1": {
            "vocab_size": 2_048, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "mamba_d_ssm": 64, "mamba_n_heads": 4,
            "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1,
        },
    }  # fmt: skip
    module = importlib.import_module(f"mlx_lm.models.{name}")
    mx.random.seed(1)
    model = module.Model(module.ModelArgs(model_type=name, **shapes[name]))
    mx.eval(model.parameters())
    layout = Layout.of(adapter.first_step(model)[0], Copied())
    return ResidentModel(Path(name), name.encode(), model, layout, cast("Any", None), cast("Any", None), 0)


@pytest.mark.parametrize("name", ["mamba2", "falcon_h1"])
def test_models_of_which_nothing_can_be_cut_join_and_leave_too(name: str) -> None:
    rows = Rows(other_kind(name))
    assert not any(rows.model.layout.cuttable)
    for n_prompt in (30, 7, 50):
        rows.join(n_prompt)
        rows.step()
    for place in (1, 0, 0):
        rows.leave(place)
        for _ in range(2 if len(rows.live) else 0):
            rows.step()


def test_what_mlx_lm_cannot_join_is_known_beforehand(models: dict[Family, ResidentModel]) -> None:
    from mlx_lm.models import cache

    assert all(model.layout.can_join for model in models.values())
    made = cast("list[LayerCache]", [cache.KVCache(), cache.ArraysCache(2), cache.RotatingKVCache(64)])
    assert adapter.can_join(made)
    assert adapter.can_join(cast("list[LayerCache]", [cache.CacheList(*cast("list[Any]", made))]))
    for other in (cache.ChunkedKVCache(64), cache.QuantizedKVCache(), cache.ConcatenateKVCache()):
        assert not adapter.can_join([*made, cast("LayerCache", other)])
        assert not adapter.can_join(cast("list[LayerCache]", [cache.CacheList(cast("Any", other))]))
