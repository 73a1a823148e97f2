"""Small model folders with random weights, one per architecture that the engine treats in a way of its own.

A folder is what a download in the MLX format is: weights, configuration, tokenizer, chat template. Greedy answers are
meaningless, do not repeat themselves soon, hold no control token and end at the token limit; every token of the
prompt moves the logits. The same arguments and libraries give the same files.
"""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast, get_args

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from demo.tiny_model import END_TOKENS, MARKUP_TOKENS, SPECIAL_TOKENS, write_json
from tests.support.tokenizer_files import trained_tokenizer, write_tokenizer_files

Family = Literal["qwen3", "llama", "qwen3_next", "qwen3_5", "gemma3", "gpt_oss"]
FAMILIES: tuple[Family, ...] = get_args(Family)
CUTTABLE: tuple[Family, ...] = ("qwen3", "llama")  # any prefix of their state is the state of that prefix
MIXTURES: tuple[Family, ...] = ("qwen3_next", "gpt_oss")  # of experts: on the CPU MLX computes them in float32 only
WINDOW = 64  # of the layers in gemma3 and gpt_oss that look back only so far

_N_HIDDEN, _HEAD_DIM = 64, 32
_SHARPNESS = 1.5  # of queries and of keys
_LOGIT_SPREAD = 4.0  # standard deviation of the logits
_ATTENTION_SHARE = 4.0  # of what is added to the residual, against 1 for the token itself
_ATTENTION: dict[str, Any] = {
    "hidden_size": _N_HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": _HEAD_DIM,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
}
_RECURRENT: dict[str, Any] = {
    "num_hidden_layers": 4,
    "full_attention_interval": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
}
_CONFIGS: dict[Family, dict[str, Any]] = {
    "qwen3": {"model_type": "qwen3"},
    "llama": {"model_type": "llama"},
    "qwen3_next": _RECURRENT
    | {
        "model_type": "qwen3_next",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "moe_intermediate_size": 64,
        "mlp_only_layers": [],
        "partial_rotary_factor": 0.5,
    },
    "qwen3_5": _RECURRENT
    | {
        "model_type": "qwen3_5",
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": _HEAD_DIM,
        "rope_local_base_freq": 10_000.0,
        "sliding_window": WINDOW,
        "sliding_window_pattern": 2,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": WINDOW,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 8.0,
            "original_max_position_embeddings": 4_096,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
        },
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
}


def random_model(
    folder: Path,
    family: Family,
    *,
    seed: int = 0,
    dtype: Literal["float32", "bfloat16"] = "float32",
    n_vocab: int = 2_048,
    n_context: int = 32_768,
) -> Path:
    """Writes the model into a new folder and returns it: 50 ms, and once per `n_vocab` the tokenizer's training."""
    folder.mkdir(parents=True)
    tokenizer = trained_tokenizer(n_vocab)
    ids = {token["content"]: token["id"] for token in json.loads(tokenizer)["added_tokens"]}
    ends = [ids[token] for token in END_TOKENS]
    config = _ATTENTION | _CONFIGS[family]
    config |= {"vocab_size": n_vocab, "max_position_embeddings": n_context, "torch_dtype": dtype, "eos_token_id": ends}
    muted = [ids[token] for token in SPECIAL_TOKENS + MARKUP_TOKENS]
    weights = {name: value.astype(getattr(mx, dtype)) for name, value in _weights(config, muted, seed)}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    write_json(folder / "config.json", config)
    write_tokenizer_files(folder, tokenizer, ends, n_context=n_context)
    return folder


def _weights(config: dict[str, Any], muted: list[int], seed: int) -> Iterator[tuple[str, mx.array]]:
    """The parameters that mlx-lm's own class names, with values of ours."""
    module = importlib.import_module(f"mlx_lm.models.{config['model_type']}")
    model = module.Model(module.ModelArgs.from_dict(json.loads(json.dumps(config))))  # it changes what it is given
    rng = np.random.default_rng(seed)
    parameters = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    for name, parameter in parameters:
        weight = _weight(name, parameter.shape, rng, is_gemma=config["model_type"] == "gemma3_text")
        if name.endswith("lm_head.weight"):
            weight[muted] = 0.0  # never the greatest, and all but never sampled
        yield name, mx.array(weight)


def _weight(name: str, shape: tuple[int, ...], rng: np.random.Generator, *, is_gemma: bool) -> NDArray[np.float32]:
    """Sharp attention and slow forgetting: what was read long ago still decides. Gemma's norms add 1 themselves."""
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return np.full(shape, _SHARPNESS - is_gemma, np.float32)
    if "norm" in name:
        return np.full(shape, 1.0 - is_gemma, np.float32)
    if name.endswith("A_log"):
        return np.log(rng.uniform(0.001, 0.05, shape)).astype(np.float32)
    is_convolution = name.endswith("conv1d.weight")  # [channels, taps, 1]
    scale = 0.1 if len(shape) == 1 else shape[-2 if is_convolution else -1] ** -0.5
    if name.endswith("embed_tokens.weight"):
        scale = shape[-1] ** -0.5 if is_gemma else 1.0
    elif name.endswith("lm_head.weight"):
        scale *= _LOGIT_SPREAD
    elif name.endswith(("q_proj.weight", "k_proj.weight")):
        scale *= _SHARPNESS
    elif name.endswith(("o_proj.weight", "out_proj.weight")):
        scale *= _ATTENTION_SHARE
    return rng.standard_normal(shape, np.float32) * np.float32(scale)
