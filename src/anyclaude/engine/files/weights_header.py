"""The header of a safetensors file, checked before anything is loaded: sizes in a file are claims until then.

The format: eight bytes of little-endian length, that many bytes of JSON, then the data, which the tensors must cover
from the first byte to the last without a gap or an overlap.
"""

import json
import math
import struct
from pathlib import Path
from typing import Any, cast

from anyclaude.errors import ModelRefused

MAX_HEADER = 100_000_000  # the format's own limit
_MAX_DIMENSIONS = 16
_LENGTH = struct.Struct("<Q")
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
    "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
Span = tuple[int, int, str]


def check_weights(path: Path) -> int:
    """The bytes of data in the file. Raises ModelRefused; OSError where it cannot be read."""
    size = path.stat().st_size
    header = _read_header(path, size)
    n_data = size - _LENGTH.size - len(header)
    end = 0
    for start, stop, name in sorted(_spans(header, path.name)):
        if start != end:
            problem = "overlaps another tensor" if start < end else "leaves bytes before it that belong to no tensor"
            raise ModelRefused(f"{path.name}: {name!r} {problem}")
        end = stop
    if end != n_data:
        cut = "it was cut off: download it again" if end > n_data else "there are bytes behind the last tensor"
        raise ModelRefused(f"{path.name}: its header announces {end:,} bytes of data, the file has {n_data:,}; {cut}")
    return n_data


def _read_header(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise ModelRefused(f"{path.name}: {size} bytes are too few for weights: download it again")
        (length,) = _LENGTH.unpack(start)
        if not 2 <= length <= min(MAX_HEADER, size - _LENGTH.size):
            raise ModelRefused(
                f"{path.name}: a header of {length:,} bytes is announced in a file of {size:,}: no safetensors file, "
                "or a damaged one"
            )
        return file.read(length)


def _spans(header: bytes, file: str) -> list[Span]:
    """Each tensor's bytes, as offsets into the data."""
    try:
        tensors: object = json.loads(header)
    except (ValueError, RecursionError):
        raise ModelRefused(f"{file}: its header is no JSON") from None
    if not isinstance(tensors, dict):
        raise ModelRefused(f"{file}: its header is no JSON object")
    found = [(n, t) for n, t in cast("dict[str, object]", tensors).items() if n != "__metadata__"]
    if not found:
        raise ModelRefused(f"{file}: it holds no tensor")
    return [_span(name, tensor, file) for name, tensor in found]


def _span(name: str, tensor: object, file: str) -> Span:
    fields = cast("dict[str, Any]", tensor) if isinstance(tensor, dict) else {}
    offsets, shape, dtype = _whole(fields.get("data_offsets")), _whole(fields.get("shape")), fields.get("dtype")
    if (
        offsets is None
        or len(offsets) != 2
        or shape is None
        or len(shape) > _MAX_DIMENSIONS
        or not isinstance(dtype, str)
    ):
        raise ModelRefused(f"{file}: the entry of {name[:100]!r} has no data type, shape and place")
    if dtype not in _BITS:
        raise ModelRefused(f"{file}: {name[:100]!r} has the unknown data type {dtype[:20]!r}")
    start, stop = offsets
    if stop - start != math.prod(shape) * _BITS[dtype] // 8:
        raise ModelRefused(f"{file}: {name[:100]!r} takes {stop - start:,} bytes, which is not its shape's size")
    return start, stop, name[:100]


def _whole(found: object) -> list[int] | None:
    """A list of whole numbers, none negative."""
    if not isinstance(found, list):
        return None
    numbers = cast("list[object]", found)
    return cast("list[int]", numbers) if all(type(n) is int and n >= 0 for n in numbers) else None
