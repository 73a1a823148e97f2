"""Makes a small qwen3 model with random weights, so that a real `mlx_lm.server` runs without a download.

At temperature 1.0 an answer takes about `1 / end_share` tokens of meaningless but plain text; control tokens
such as `<tool_call>` are never sampled. At temperature 0 it may run until the token limit. The vocabulary is
learned from the running Python's standard library: the same Python, seed and share give the same files.
"""

import argparse
import json
import random
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

RECIPE_VERSION = 1
RECIPE_FILE = "tiny_model.json"
MODEL_FILES = ("config.json", "generation_config.json", "model.safetensors")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

N_VOCAB, N_CONTEXT = 8_192, 131_072
N_LAYERS, N_HEADS, HEAD_DIM = 2, 2, 64
N_HIDDEN, N_INNER, N_ATTENTION = 128, 384, N_HEADS * HEAD_DIM
MODEL_CONFIG: dict[str, object] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": N_HIDDEN,
    "intermediate_size": N_INNER,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": N_HEADS,
    "num_key_value_heads": N_HEADS,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "vocab_size": N_VOCAB,
    "max_position_embeddings": N_CONTEXT,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
TOKENIZER_CONFIG: dict[str, object] = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "model_max_length": N_CONTEXT,
    "clean_up_tokenization_spaces": False,
}
LAYER_SHAPES = {
    "input_layernorm": (N_HIDDEN,),
    "self_attn.q_proj": (N_ATTENTION, N_HIDDEN),
    "self_attn.k_proj": (N_ATTENTION, N_HIDDEN),
    "self_attn.v_proj": (N_ATTENTION, N_HIDDEN),
    "self_attn.q_norm": (HEAD_DIM,),
    "self_attn.k_norm": (HEAD_DIM,),
    "self_attn.o_proj": (N_HIDDEN, N_ATTENTION),
    "post_attention_layernorm": (N_HIDDEN,),
    "mlp.gate_proj": (N_INNER, N_HIDDEN),
    "mlp.up_proj": (N_INNER, N_HIDDEN),
    "mlp.down_proj": (N_HIDDEN, N_INNER),
}

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKUP_TOKENS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")

# Append-only: every tool result is a turn of its own, and nothing looks at later messages. mlx-lm picks its
# JSON tool parser when it reads `<tool_call>` and `tool_call.name` here.
CHAT_TEMPLATE = r"""
{%- set turns = namespace(rest=messages) -%}
{%- if tools -%}
  {{- "<|im_start|>system\n" -}}
  {%- if messages[0].role == "system" -%}
    {{- messages[0].content ~ "\n\n" -}}
    {%- set turns.rest = messages[1:] -%}
  {%- endif -%}
  {{- "The tools you can call, one JSON description a line:\n<tools>\n" -}}
  {%- for tool in tools -%}
    {{- (tool | tojson) ~ "\n" -}}
  {%- endfor -%}
  {{- "</tools>\n\nTo call one, answer with its name and arguments in this form:\n" -}}
  {{- "<tool_call>\n{\"name\": \"tool\", \"arguments\": {\"key\": \"value\"}}\n</tool_call><|im_end|>\n" -}}
{%- endif -%}
{%- for message in turns.rest -%}
  {{- "<|im_start|>" ~ ("user" if message.role == "tool" else message.role) ~ "\n" -}}
  {%- if message.role == "tool" -%}
    {{- "<tool_response>\n" ~ message.content ~ "\n</tool_response>" -}}
  {%- else -%}
    {%- if message.reasoning_content -%}
      {{- "<think>\n" ~ message.reasoning_content ~ "\n</think>\n\n" -}}
    {%- endif -%}
    {{- message.content or "" -}}
    {%- for call in message.tool_calls or [] -%}
      {%- set tool_call = call.function or call -%}
      {{- "\n" if message.content or not loop.first else "" -}}
      {{- "<tool_call>\n{\"name\": " ~ (tool_call.name | tojson) -}}
      {{- ", \"arguments\": " ~ ((tool_call.arguments or {}) | tojson) ~ "}\n</tool_call>" -}}
    {%- endfor -%}
  {%- endif -%}
  {{- "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "<|im_start|>assistant\n" -}}
{%- endif -%}
"""


def make_tiny_model(folder: Path, *, seed: int = 0, end_share: float = 0.04) -> Path:
    """Make the folder unless it is there already; another tiny model is replaced, anything else refused."""
    if not 0 <= end_share < 1:
        raise ValueError(f"end_share must be at least 0 and below 1, not {end_share}")
    recipe = {"version": RECIPE_VERSION, "seed": seed, "end_share": end_share}
    if is_made(folder, recipe):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / RECIPE_FILE).exists():
        raise FileExistsError(f"{folder} holds something other than a tiny model: name a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch, "fresh")
        fresh.mkdir()
        write_model(fresh, seed=seed, end_share=end_share)
        write_json(fresh / RECIPE_FILE, recipe)
        put_in_place(fresh, folder, recipe, aside=Path(scratch, "replaced"))
    return folder


def is_made(folder: Path, recipe: Mapping[str, object]) -> bool:
    try:
        found = json.loads((folder / RECIPE_FILE).read_text())
    except (OSError, ValueError):
        return False
    return found == recipe and all((folder / name).is_file() for name in MODEL_FILES + TOKENIZER_FILES)


def put_in_place(fresh: Path, folder: Path, recipe: Mapping[str, object], *, aside: Path) -> None:
    """Rename `fresh` to `folder`; another process that was faster with the same recipe wins."""
    try:
        if folder.exists() and not is_made(folder, recipe):
            folder.rename(aside)
        fresh.rename(folder)
    except OSError:
        if not is_made(folder, recipe):
            raise


def write_model(folder: Path, *, seed: int, end_share: float) -> None:
    tokenizer = train_tokenizer()
    ids = tokenizer.get_vocab()
    ends = [ids[token] for token in END_TOKENS]
    added = {ids[token] for token in SPECIAL_TOKENS + MARKUP_TOKENS}
    plain = [i for i in range(N_VOCAB) if i not in added and is_plain(tokenizer.decode([i]))]
    drawn = random.Random(seed).sample(plain, round(end_share * len(plain)))
    end_ids = ends + sorted(drawn)
    muted = set(range(N_VOCAB)).difference(plain, ends)

    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.lstrip("\n"), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(save(make_weights(muted, seed), metadata={"format": "mlx"}))
    write_json(folder / "config.json", MODEL_CONFIG | {"eos_token_id": end_ids})
    write_json(folder / "generation_config.json", {"do_sample": True, "eos_token_id": end_ids})
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG)


def train_tokenizer(n_vocab: int = N_VOCAB) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    added = [AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS]
    added += [AddedToken(token, normalized=False, special=False) for token in MARKUP_TOKENS]
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab - len(added),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(standard_library(), trainer)
    tokenizer.add_tokens(added)  # pyright: ignore[reportUnknownMemberType]
    assert tokenizer.get_vocab_size() == n_vocab, "the standard library's sources are missing or too short"
    return tokenizer


def standard_library(n_chars_each: int = 12_000) -> Iterator[str]:
    """The opening of each top-level module, by name: about 1.5 MB."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        yield path.read_text(encoding="utf-8", errors="replace")[:n_chars_each]


def is_plain(text: str) -> bool:
    """Whether a token alone is whole, harmless text: no cut UTF-8 sequence, no terminal control."""
    return "\ufffd" not in text and all(char.isprintable() or char in "\n\t" for char in text)


def make_weights(muted: Iterable[int], seed: int) -> dict[str, NDArray[np.float32]]:
    """Random weights; channel 0 is 1 before the last norm whatever was read, so the head can mute tokens."""
    rng = np.random.default_rng(seed)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in weight_shapes():
        is_norm = len(shape) == 1
        scale = np.float32(1.0 if name == "model.embed_tokens" else shape[-1] ** -0.5)
        weight = np.ones(shape, np.float32) if is_norm else rng.standard_normal(shape, np.float32) * scale
        if name.endswith(("o_proj", "down_proj")):
            weight[0] = 0.0
        weights[f"{name}.weight"] = weight
    weights["model.embed_tokens.weight"][:, 0] = 1.0
    weights["lm_head.weight"][:, 0] = 0.0
    weights["lm_head.weight"][sorted(muted), 0] = -100.0
    return weights


def weight_shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "model.embed_tokens", (N_VOCAB, N_HIDDEN)
    for i in range(N_LAYERS):
        for name, shape in LAYER_SHAPES.items():
            yield f"model.layers.{i}.{name}", shape
    yield "model.norm", (N_HIDDEN,)
    yield "lm_head", (N_VOCAB, N_HIDDEN)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a small random-weight qwen3 model folder.")
    parser.add_argument("folder", type=Path)
    print(make_tiny_model(cast("Path", parser.parse_args().folder)))


if __name__ == "__main__":
    main()
