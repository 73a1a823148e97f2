"""What a model that lies on this machine tells of itself by its config.json: the context window, what a token of state
costs, whether it chats. Nothing is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from anyclaude.wire.model_config import window_in

_MAX_JSON = 16 << 20


def hub_folder(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps models (its documented variables)."""
    if cache := environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def repository_of(name: str, hub: Path) -> Path:
    """Where the cache keeps the model of that hub id."""
    return hub / f"models--{name.replace('/', '--')}"


def window_of(model: str, hub: Path) -> int | None:
    """Tokens by the model's own config.json: a folder, or a hub id in the cache. None where it does not tell."""
    if model.startswith("/"):
        return window_in(read_object(Path(model) / "config.json"))
    configs = sorted((repository_of(model, hub) / "snapshots").glob("*/config.json"))
    windows = [window_in(read_object(path)) for path in configs]
    return next((window for window in windows if window), None)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; nothing where there is none, or one too large to be a model's."""
    try:
        if path.stat().st_size > _MAX_JSON:
            return {}
        fields: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}


def kv_bytes_per_token(config: Mapping[str, Any], *, n_bytes: int = 2) -> int | None:
    """State that one token adds, by the layers whose state grows; `n_bytes` a number. None where the config does not
    tell. Layers with a window of their own, and recurrent ones, have a state that stays as large as it is."""
    for table in _tables(config):
        layers, heads = _count(table.get("num_hidden_layers")), _count(table.get("num_attention_heads"))
        if layers is None or heads is None:
            continue
        latent, rope = _count(table.get("kv_lora_rank")), _count(table.get("qk_rope_head_dim"))
        if latent is not None:
            return layers * (latent + (rope or 0)) * n_bytes
        width = _count(table.get("head_dim")) or (_count(table.get("hidden_size")) or 0) // heads
        each = 2 * (_count(table.get("num_key_value_heads")) or heads) * width * n_bytes
        return _growing_layers(table, layers) * each or None
    return None


def _growing_layers(table: Mapping[str, Any], layers: int) -> int:
    kinds = table.get("layer_types")
    if isinstance(kinds, list):
        return sum(kind == "full_attention" for kind in cast("list[object]", kinds))
    interval = _count(table.get("full_attention_interval"))
    return layers // interval if interval is not None else layers


def chats(folder: Path) -> bool:
    """Whether it has a chat template: what has none embeds, transcribes or only continues text."""
    if (folder / "chat_template.jinja").exists():
        return True
    return bool(read_object(folder / "tokenizer_config.json").get("chat_template"))


def _tables(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The config, and that of the language model inside one that reads more than text."""
    inner = config.get("text_config")
    return [config, cast("Mapping[str, Any]", inner)] if isinstance(inner, dict) else [config]


def _count(figure: object) -> int | None:
    return figure if type(figure) is int and figure > 0 else None
