"""What a model's state depends on, as one digest: blocks of one fingerprint are never used under another.

Weights are not read whole. Their headers and sizes are taken, and a few bytes of every tensor: another fine-tuning of
the same model has the same headers.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from anyclaude.engine.files.weights_header import MAX_HEADER
from anyclaude.errors import ModelRefused

_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)
_SAMPLE = 64  # bytes, at the start, in the middle and at the end of a tensor


def fingerprint(folder: Path, kv_type: str, versions: Sequence[str]) -> bytes:
    """`versions` are those of the libraries that compute the state. Raises ModelRefused where a file cannot be read."""
    digest = hashlib.sha256()
    try:
        for part in _parts(folder, kv_type, versions):
            digest.update(len(part).to_bytes(8, "little") + part)
    except OSError as error:
        raise ModelRefused(f"{folder} cannot be read: {error.strerror}") from error
    return digest.digest()


def _parts(folder: Path, kv_type: str, versions: Sequence[str]) -> Iterator[bytes]:
    yield from (text.encode() for text in ("anyclaude", kv_type, *versions))
    for name in _FILES:
        path = folder / name
        yield name.encode()
        yield hashlib.sha256(path.read_bytes()).digest() if path.exists() else b""
    for path in sorted(folder.glob("*.safetensors")):
        yield path.name.encode()
        with path.open("rb") as file:
            yield from _weights(file, path.stat().st_size)


def _weights(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Size, header, and samples of the data."""
    yield size.to_bytes(8, "little")
    length = int.from_bytes(file.read(8), "little")
    header = file.read(min(length, size, MAX_HEADER))
    yield hashlib.sha256(header).digest()
    for start, end in sorted(_spans(header)):
        for at in (start, (start + end) // 2, max(start, end - _SAMPLE)):
            file.seek(8 + length + at)
            yield file.read(min(_SAMPLE, end - at))


def _spans(header: bytes) -> Iterator[tuple[int, int]]:
    """Of each tensor. A header that makes no sense has none: whoever loads the weights refuses it."""
    try:
        found: object = json.loads(header)
    except (ValueError, RecursionError):
        return
    tensors = cast("dict[str, object]", found).values() if isinstance(found, dict) else ()
    for tensor in tensors:
        offsets: object = cast("dict[str, object]", tensor).get("data_offsets") if isinstance(tensor, dict) else None
        match offsets:
            case [int(start), int(end)] if 0 <= start <= end < 1 << 50:
                yield start, end
            case _:
                pass
