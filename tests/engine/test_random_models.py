"""The random-weight models that other tests rely on: real architectures, answers worth comparing, nothing lost."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.models.cache import can_trim_prompt_cache, make_prompt_cache
from numpy.typing import NDArray

from tests.support.models import CUTTABLE, FAMILIES, MIXTURES, WINDOW, Family, random_model

N_VOCAB = 2_048
PROMPT: list[int] = np.random.default_rng(1).integers(0, 2_000, 300).tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture(scope="module")
def model(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(random_model(tmp_path_factory.mktemp("model") / family, family, n_vocab=N_VOCAB))


def load(folder: Path) -> Any:
    return mlx_lm.load(str(folder), trust_remote_code=False)[0]


def greedy(model: Any, prompt: list[int], n_tokens: int) -> list[int]:
    return [int(token) for token, _ in generate_step(mx.array(prompt), model, max_tokens=n_tokens)]


def logits(model: Any, tokens: list[int], cache: Any = None) -> NDArray[np.float32]:
    """After the last of the tokens."""
    return np.array(model(mx.array([tokens]), cache=cache or make_prompt_cache(model))[0, -1])


def test_a_greedy_answer_does_not_repeat_itself_and_holds_no_control_token(model: Any) -> None:
    answer = greedy(model, PROMPT, 64)
    assert len(answer) == 64
    assert len(set(answer)) > 40
    assert max(answer) < N_VOCAB - 9


def test_every_token_of_the_prompt_moves_the_logits_more_than_rounding_does(model: Any) -> None:
    whole = logits(model, PROMPT)
    cache = make_prompt_cache(model)
    logits(model, PROMPT[:137], cache)
    assert np.abs(logits(model, PROMPT[137:], cache) - whole).max() < 1e-4
    for place in (0, 1, 100, 200, 298):
        other = [*PROMPT[:place], (PROMPT[place] + 7) % 2_000, *PROMPT[place + 1 :]]
        assert np.abs(logits(model, other) - whole).max() > 0.02


def test_the_state_can_be_cut_where_the_table_says_so_and_nowhere_else(model: Any, family: Family) -> None:
    cache = make_prompt_cache(model)
    logits(model, PROMPT, cache)
    assert can_trim_prompt_cache(cache) == (family in CUTTABLE)
    windows = [layer.max_size for layer in cache if type(layer).__name__ == "RotatingKVCache"]
    assert windows == ([WINDOW] * 2 if family in ("gemma3", "gpt_oss") else [])
    recurrent = [layer for layer in cache if type(layer).__name__ == "ArraysCache"]
    assert len(recurrent) == (2 if family in ("qwen3_next", "qwen3_5") else 0)


def test_the_same_arguments_give_the_same_weights_and_another_seed_others(tmp_path: Path, family: Family) -> None:
    folders = [random_model(tmp_path / str(n), family, seed=seed) for n, seed in enumerate((0, 0, 1))]
    first, second, third = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert first == second
    assert first != third


def test_bfloat16_is_stored_and_runs(tmp_path: Path, family: Family) -> None:
    model = load(random_model(tmp_path / "model", family, dtype="bfloat16"))
    assert model(mx.array([PROMPT[:3]])).dtype == mx.bfloat16
    if family in MIXTURES and mx.default_device() == mx.cpu:
        with pytest.raises(RuntimeError, match="only supports float32"):
            greedy(model, PROMPT, 1)
    else:
        assert len(set(greedy(model, PROMPT, 16))) > 8


def test_vocabulary_and_context_are_those_asked_for(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model", "qwen3", n_vocab=1_024, n_context=4_096)
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["max_position_embeddings"]) == (1_024, 4_096)
    assert logits(load(folder), [0]).shape == (1_024,)
