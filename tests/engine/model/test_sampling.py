"""How the next token is drawn: a request's wishes, the model's own, and what is never said."""

import json
from collections import Counter
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.engine.model.sampling import Defaults, Samplers, read_defaults
from anyclaude.wire.frames import Sampling
from tests.support.models import random_model
from tests.support.rows import some_ids
from tests.support.stepping import untimed

CHANCES = [0.5, 0.25, 0.15, 0.07, 0.03]
N = 1_000


def draws(sampling: Sampling, *, defaults: Defaults | None = None, masked: tuple[int, ...] = ()) -> Counter[int]:
    """Of a thousand draws in one call, how often each token came."""
    mx.random.seed(0)
    logprobs = mx.broadcast_to(mx.log(mx.array(CHANCES)), (N, len(CHANCES)))
    drawn = Samplers(defaults or Defaults(), masked, len(CHANCES)).of(sampling)(logprobs)
    return Counter(np.array(drawn).tolist())


def test_without_any_wish_the_likeliest_token_is_taken() -> None:
    assert draws(Sampling()) == {0: N}


def test_at_temperature_one_tokens_come_as_often_as_they_are_likely() -> None:
    found = draws(Sampling(temperature=1.0))
    assert all(abs(found[token] / N - chance) < 0.05 for token, chance in enumerate(CHANCES))


def test_a_higher_temperature_evens_out_and_a_lower_one_sharpens() -> None:
    assert draws(Sampling(temperature=5.0))[4] > 3 * draws(Sampling(temperature=1.0))[4]
    assert draws(Sampling(temperature=0.3))[0] > 850


@pytest.mark.parametrize(("top_k", "left"), [(1, {0}), (2, {0, 1}), (4, {0, 1, 2, 3}), (5, {0, 1, 2, 3, 4})])
def test_top_k_leaves_so_many_tokens(top_k: int, left: set[int]) -> None:
    assert set(draws(Sampling(temperature=3.0, top_k=top_k))) == left


@pytest.mark.parametrize(
    ("top_p", "left"), [(0.0, {0}), (0.4, {0}), (0.7, {0, 1}), (0.85, {0, 1, 2}), (1.0, {0, 1, 2, 3, 4})]
)
def test_top_p_leaves_the_fewest_tokens_that_are_likely_enough(top_p: float, left: set[int]) -> None:
    assert set(draws(Sampling(temperature=3.0, top_p=top_p))) == left


def test_the_models_own_wishes_hold_where_the_request_says_nothing() -> None:
    own = Defaults(temperature=3.0, top_k=2)
    assert set(draws(Sampling(), defaults=own)) == {0, 1}
    assert set(draws(Sampling(top_k=3), defaults=own)) == {0, 1, 2}
    assert set(draws(Sampling(temperature=0.0), defaults=own)) == {0}
    assert set(draws(Sampling(temperature=3.0), defaults=Defaults(min_p=0.4))) == {0, 1}


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=50.0), Sampling(temperature=9.0, top_p=0.9, top_k=3)]
)
def test_what_must_never_be_said_is_never_drawn(sampling: Sampling) -> None:
    found = draws(sampling, masked=(0, 3))
    assert found.total() == N
    assert not found.keys() & {0, 3}


def test_masked_ids_beyond_the_logits_do_no_harm() -> None:
    assert draws(Sampling(), masked=(0, 5, 2**31 - 1)) == {1: N}


def test_masks_hold_in_bfloat16() -> None:
    logits = mx.array([CHANCES]).astype(mx.bfloat16)
    assert Samplers(Defaults(), (0,), 5).of(Sampling())(logits).tolist() == [1]


def test_rows_with_the_same_wishes_share_a_sampler() -> None:
    samplers = Samplers(Defaults(temperature=0.7), (), 5)
    assert samplers.of(Sampling()) is samplers.of(Sampling(temperature=0.7))
    assert samplers.of(Sampling()) is not samplers.of(Sampling(temperature=0.8))


@settings(max_examples=25, deadline=None)
@given(
    temperature=st.floats() | st.sampled_from([1e-320, 1e-30]),
    top_p=st.floats(),
    top_k=st.integers(-(2**40), 2**40) | st.integers(-2, 7),
)
def test_whatever_a_request_wishes_a_token_is_drawn(temperature: float, top_p: float, top_k: int) -> None:
    sampler = Samplers(Defaults(), (4,), 5).of(Sampling(temperature, top_p, top_k))
    assert set(np.array(sampler(mx.log(mx.array([CHANCES] * 8)))).tolist()) <= {0, 1, 2, 3}


def test_more_choices_than_there_are_tokens_are_all_of_them_and_end_no_other_row(tmp_path: Path) -> None:
    bench = untimed()
    model = bench.model(random_model(tmp_path / "model", "qwen3"))
    rows = [bench.row(model, some_ids(20, n), 5) for n in range(2)]
    rows[0].sampler = model.samplers.of(Sampling(temperature=1.0, top_k=1_000_000))
    for row in rows:
        bench.scheduler.submit(row)
    bench.finish()
    assert [len(row.generated) for row in rows] == [5, 5]


def written(folder: Path, found: object) -> Path:
    (folder / "generation_config.json").write_text(found if isinstance(found, str) else json.dumps(found))
    return folder


def test_the_models_own_file_is_read(tmp_path: Path) -> None:
    fields = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "eos_token_id": [3, 1]}
    assert read_defaults(written(tmp_path, fields), {"eos_token_id": 1}) == Defaults(
        temperature=0.6, top_p=0.95, top_k=20, min_p=0.1, eos_ids=(3, 1)
    )


@pytest.mark.parametrize(
    ("fields", "temperature"),
    [
        ({}, 0.0),
        ({"temperature": 0.6}, 0.6),
        ({"do_sample": True}, 1.0),
        ({"do_sample": False, "temperature": 0.6}, 0.0),
        ({"do_sample": "no", "temperature": 0.6}, 0.6),
        ({"do_sample": None}, 0.0),
    ],
)
def test_a_model_samples_when_its_file_says_so(tmp_path: Path, fields: dict[str, object], temperature: float) -> None:
    assert read_defaults(written(tmp_path, fields), {}).temperature == temperature


@pytest.mark.parametrize(
    "found",
    [
        "", "{", "[]", "null", "[" * 100_000, '{"temperature": "hot", "top_k": null, "top_p": true, "min_p": []}',
        '{"top_k": Infinity, "top_p": NaN, "min_p": -1}', '{"top_k": 1e999, "top_p": 2, "min_p": 7}',
        '{"top_k": -5, "eos_token_id": [true, -1, "a", null, 1.5, 99999999999]}', '{"top_k": 1' + "0" * 400 + "}",
        '{"x": "' + "a" * (1 << 20) + '", "temperature": 0.6}',
    ],
)  # fmt: skip
def test_what_cannot_be_read_or_makes_no_sense_says_nothing(tmp_path: Path, found: str) -> None:
    read = read_defaults(written(tmp_path, found), {"eos_token_id": 7})
    assert (read.top_p, read.top_k, read.min_p, read.eos_ids) == (1.0, 0, 0.0, (7,))


def test_without_a_file_it_is_greedy_and_ends_where_the_configuration_says(tmp_path: Path) -> None:
    assert read_defaults(tmp_path, {"eos_token_id": [5, 6]}) == Defaults(eos_ids=(5, 6))
