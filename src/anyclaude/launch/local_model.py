"""The context window of a model that lies on this machine, for servers that do not tell (mlx_lm.server)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

_WINDOW_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


def hub_folder(environ: Mapping[str, str]) -> Path:
    """Where huggingface_hub keeps models (its documented variables)."""
    if cache := environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    home = environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface"
    return Path(home).expanduser() / "hub"


def window_of(model: str, hub: Path) -> int | None:
    """Tokens by the model's own config.json: a folder, or a hub id in the cache. None where it does not tell."""
    if model.startswith("/"):
        return _window(Path(model) / "config.json")
    snapshots = hub / f"models--{model.replace('/', '--')}" / "snapshots"
    windows = [_window(path) for path in sorted(snapshots.glob("*/config.json"))]
    return next((window for window in windows if window), None)


def _window(config: Path) -> int | None:
    try:
        fields: object = json.loads(config.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(fields, dict):
        return None
    whole = cast("dict[str, Any]", fields)
    for table in (whole, whole.get("text_config")):
        for key in _WINDOW_KEYS if isinstance(table, dict) else ():
            figure = cast("dict[str, Any]", table).get(key)
            if isinstance(figure, int) and figure > 0:
                return figure
    return None
