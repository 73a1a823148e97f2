"""Model folders of a few bytes: every file that a real one has, and weights that compute nothing."""

import json
import struct
from pathlib import Path
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 64,
    "head_dim": 16,
    "max_position_embeddings": 40960,
}


def safetensors(n_bytes: int) -> bytes:
    """One tensor of that many zero bytes."""
    tensor = {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}
    header = json.dumps({"tensor": tensor}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(n_bytes)


def make_model(folder: Path, *, n_bytes: int = 16, weights: str | None = "model.safetensors", **config: Any) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    if weights is not None:
        (folder / weights).write_bytes(safetensors(n_bytes))
    return folder


def make_hub_model(hub: Path, name: str, *, n_bytes: int = 16, commit: str = "c0ffee", **config: Any) -> Path:
    """As huggingface_hub lays it out; returns the snapshot's folder."""
    repository = hub / f"models--{name.replace('/', '--')}"
    snapshot = make_model(repository / "snapshots" / commit, n_bytes=n_bytes, **config)
    (repository / "blobs").mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(repository / "blobs" / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return snapshot
