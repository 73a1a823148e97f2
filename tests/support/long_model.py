"""A model whose every answer is the same long row of words: long enough to be met in the midst of it.

One token follows from the one before, whatever else was read: the embeddings are random, and the head knows each of
the row by the one that comes before it. Any other token, such as the last of a prompt, begins the row.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tokenizers import Tokenizer

from demo.tiny_model import END_TOKENS, write_json
from tests.support.tokenizer_files import trained_tokenizer, write_tokenizer_files

N_CONTEXT = 131_072
_N_VOCAB, _N_HIDDEN, _N_INNER, _HEAD_DIM = 8_192, 256, 64, 32
_FIRST, _SHARPNESS = 0.7, 8.0  # between what a token that is followed makes of a logit, and what chance does


def long_model(folder: Path, *, n_words: int = 600, n_context: int = N_CONTEXT) -> Path:
    """Writes the model into a new folder and returns it."""
    folder.mkdir(parents=True)
    tokenizer = trained_tokenizer(_N_VOCAB)
    added = {token["content"]: token["id"] for token in json.loads(tokenizer)["added_tokens"]}
    ends = [added[token] for token in END_TOKENS]
    row = [*_words(tokenizer)[:n_words], ends[0]]
    assert len(row) == n_words + 1
    embedding = np.random.default_rng(0).standard_normal((_N_VOCAB, _N_HIDDEN), np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    embedding[:, 0] = 1.0
    head = np.zeros((_N_VOCAB, _N_HIDDEN), np.float32)
    head[row[1:]] = embedding[row[:-1]] * _SHARPNESS
    head[row[1:], 0] = 0.0
    head[row[0], 0] = _FIRST * _SHARPNESS
    weights = {name: np.zeros(shape, np.float32) for name, shape in _silent_shapes().items()}
    weights |= {f"model.layers.0.{name}.weight": np.ones(_N_HIDDEN, np.float32) for name in _NORMS}
    weights |= {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    weights["model.norm.weight"] = np.ones(_N_HIDDEN, np.float32)
    (folder / "model.safetensors").write_bytes(save(weights, metadata={"format": "mlx"}))
    write_json(folder / "config.json", _CONFIG | {"eos_token_id": ends, "max_position_embeddings": n_context})
    write_tokenizer_files(folder, tokenizer, ends, n_context=n_context)
    return folder


_NORMS = ("input_layernorm", "post_attention_layernorm")
_CONFIG: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": _N_HIDDEN,
    "intermediate_size": _N_INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": _HEAD_DIM,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "vocab_size": _N_VOCAB,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def _silent_shapes() -> dict[str, tuple[int, int]]:
    """Attention and MLP add nothing."""
    shapes = {f"self_attn.{name}_proj": (_HEAD_DIM, _N_HIDDEN) for name in "qkv"}
    shapes |= {f"mlp.{name}_proj": (_N_INNER, _N_HIDDEN) for name in ("gate", "up")}
    shapes |= {"self_attn.o_proj": (_N_HIDDEN, _HEAD_DIM), "mlp.down_proj": (_N_HIDDEN, _N_INNER)}
    return {f"model.layers.0.{name}.weight": shape for name, shape in shapes.items()}


def _words(tokenizer: str) -> list[int]:
    """Whole small words, by id."""
    vocabulary = Tokenizer.from_str(tokenizer).get_vocab()
    return sorted(n for text, n in vocabulary.items() if text[0] == "Ġ" and text[1:].isascii() and text[1:].islower())
