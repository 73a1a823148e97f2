"""A model's state (keys, values, recurrent arrays) cut into payloads for the block cache, and put together again.

Layers with a plain KVCache can be cut at any token; the state of all others (recurrent, sliding window) is taken whole,
as a snapshot that is right at one token only. Everything here runs on the thread that owns the arrays, and every copy
of state is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, cast

import mlx.core as mx
import numpy as np

from anyclaude.engine import adapter
from anyclaude.engine.adapter import KeyValueCache, LayerCache, Model
from anyclaude.engine.cache.seam import Payload

ROOM = 512  # positions beyond the prompt, so that an answer begins without a copy of the state
_WIDE = {"bfloat16": mx.bfloat16}  # numpy has no such type: its bits travel as 16-bit integers
_DTYPES: dict[str, mx.Dtype] = {
    name: getattr(mx, name) for name in ("float32", "float16", "int32", "uint32", "int64", "uint8", "uint16")
}


@dataclass(frozen=True, eq=False)
class StatePayload:
    """Evaluated arrays, and for a snapshot the form in which they stood. Of a block: keys and values of each cuttable
    layer in turn, [1, heads, tokens, width]."""

    arrays: tuple[mx.array, ...]
    form: Any = None

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


@dataclass
class Copied:
    """Bytes of state copied since the engine started: out of live rows, into new ones, when rows join, and when a row
    outgrows its arrays."""

    stored: int = 0
    restored: int = 0
    joined: int = 0
    grown: int = 0


@dataclass
class Layout:
    """Which layers of one model can be cut."""

    cuttable: tuple[bool, ...]
    copied: Copied = field(default_factory=Copied)

    @classmethod
    def of(cls, model: Model, copied: Copied) -> "Layout":
        return cls(tuple(adapter.is_cuttable(cache) for cache in adapter.new_caches(model)), copied)

    @property
    def needs_snapshots(self) -> bool:
        return not all(self.cuttable)

    def cut(self, caches: Sequence[LayerCache], row: int, start: int, end: int) -> StatePayload:
        """The positions start to end of one row: copies, since a view would keep the whole state alive."""
        arrays: list[mx.array] = []
        for cache, is_cut in zip(caches, self.cuttable, strict=True):
            if is_cut:
                keys, values, at = _row(cache, row)
                arrays += (mx.contiguous(each[:, :, at + start : at + end]) for each in (keys, values))
        mx.eval(arrays)
        payload = StatePayload(tuple(arrays))
        self.copied.stored += payload.nbytes
        return payload

    def snapshot(self, caches: Sequence[LayerCache], row: int) -> StatePayload:
        """The layers that cannot be cut, as they are now."""
        whole = [cache for cache, is_cut in zip(caches, self.cuttable, strict=True) if not is_cut]
        if _is_batch(caches, self.cuttable):
            whole = adapter.row_of(whole, row)
        arrays: list[mx.array] = []
        form = [_taken_apart(cache.state, arrays) for cache in whole]
        kept = tuple(mx.contiguous(array) for array in arrays)
        mx.eval(kept)
        payload = StatePayload(kept, form)
        self.copied.stored += payload.nbytes
        return payload

    def restore(
        self, model: Model, pieces: Sequence[tuple[StatePayload, int]], snapshot: StatePayload | None, room: int
    ) -> list[LayerCache]:
        """Caches that hold the first positions of each piece one after the other: one copy, with `room` to grow."""
        caches = adapter.new_caches(model)
        forms = iter(cast("list[Any]", snapshot.form) if snapshot else ())
        n, layer = sum(used for _, used in pieces), 0
        for place, is_cut in enumerate(self.cuttable):
            if is_cut and pieces:
                keys, values = (_joined(pieces, 2 * layer + half, room) for half in (0, 1))
                caches[place] = adapter.filled_cache(keys, values, n)
                self.copied.restored += (keys.nbytes + values.nbytes) * n // (n + room)
                layer += 1
            elif not is_cut and snapshot is not None:
                caches[place].state = _put_together(next(forms), snapshot.arrays)
        if snapshot is not None:
            self.copied.restored += snapshot.nbytes
        mx.eval([cache.state for cache in caches if not _is_fresh(cache)])
        return caches

    def reserve(self, caches: Sequence[LayerCache], capacity: int) -> None:
        """Room for that many positions in a row of its own: growing chunk by chunk would copy the state each time."""
        for cache, is_cut in zip(caches, self.cuttable, strict=True):
            if is_cut:
                grown = cast("KeyValueCache", cache)
                assert grown.keys is not None
                assert grown.values is not None
                if (missing := capacity - grown.keys.shape[2]) > 0:
                    self.copied.grown += grown.keys.nbytes + grown.values.nbytes
                    grown.keys, grown.values = _with_room(grown.keys, missing), _with_room(grown.values, missing)

    def capacity(self, caches: Sequence[LayerCache]) -> int:
        """Positions that fit before the state is copied to larger arrays; 0 where no layer is cut."""
        for cache, is_cut in zip(caches, self.cuttable, strict=True):
            if is_cut:
                keys = cast("KeyValueCache", cache).keys
                return 0 if keys is None else keys.shape[2]
        return 0


def nbytes_of(caches: Sequence[LayerCache]) -> int:
    return sum(cache.nbytes for cache in caches if not _is_fresh(cache))


def _is_fresh(cache: LayerCache) -> bool:
    return cast("Any", cache).empty()


def _is_batch(caches: Sequence[LayerCache], cuttable: Sequence[bool]) -> bool:
    """A row of its own has plain caches where the layer can be cut; where none can be cut the first tells."""
    for cache, is_cut in zip(caches, cuttable, strict=True):
        if is_cut:
            return adapter.is_batched(cache)
    return type(caches[0]).__name__.startswith("Batch")


def _row(cache: LayerCache, row: int) -> tuple[mx.array, mx.array, int]:
    if adapter.is_batched(cache):
        return adapter.batched_row(cache, row)
    plain = cast("KeyValueCache", cache)
    assert plain.keys is not None
    assert plain.values is not None
    return plain.keys, plain.values, 0


def _joined(pieces: Sequence[tuple[StatePayload, int]], place: int, room: int) -> mx.array:
    parts = [payload.arrays[place] for payload, _ in pieces]
    parts = [part if part.shape[2] == n else part[:, :, :n] for part, (_, n) in zip(parts, pieces, strict=True)]
    return _with_room(mx.concatenate(parts, axis=2) if len(parts) > 1 else parts[0], room)


def _with_room(array: mx.array, room: int) -> mx.array:
    shape = (*array.shape[:2], room, array.shape[3])
    return mx.concatenate([array, mx.zeros(shape, array.dtype)], axis=2)


def _taken_apart(state: Any, arrays: list[mx.array]) -> Any:
    """The state with its arrays replaced by their places in `arrays`."""
    if isinstance(state, mx.array):
        arrays.append(state)
        return {"array": len(arrays) - 1}
    if isinstance(state, list | tuple):
        return [_taken_apart(each, arrays) for each in cast("Sequence[Any]", state)]
    return state


def _put_together(form: Any, arrays: Sequence[mx.array]) -> Any:
    if isinstance(form, dict):
        return arrays[cast("dict[str, int]", form)["array"]]
    if isinstance(form, list):
        return [_put_together(each, arrays) for each in cast("list[Any]", form)]
    return form


class StateCodec:
    """Payloads as bytes and back, exactly: bfloat16 as 16-bit integers. Runs on the thread that owns the arrays."""

    def pack(self, payload: Payload) -> tuple[dict[str, Any], list[memoryview]]:
        assert isinstance(payload, StatePayload)
        names = [str(array.dtype).rpartition(".")[2] for array in payload.arrays]
        header = {"types": names, "shapes": [list(array.shape) for array in payload.arrays], "form": payload.form}
        return header, [_bytes_of(array, name) for array, name in zip(payload.arrays, names, strict=True)]

    def unpack(self, header: dict[str, Any], data: memoryview) -> StatePayload:
        """Raises ValueError for what `pack` did not write."""
        try:
            arrays: list[mx.array] = []
            at = 0
            for name, shape in zip(header["types"], header["shapes"], strict=True):
                dtype = mx.uint16 if name in _WIDE else _DTYPES[name]
                end = at + prod(shape) * dtype.size
                raw = np.frombuffer(data[at:end], dtype=np.dtype(str(dtype).rpartition(".")[2])).reshape(shape)
                array = mx.array(raw)
                arrays.append(array.view(_WIDE[name]) if name in _WIDE else array)
                at = end
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a state of ours: {error}") from None
        if at != len(data):
            raise ValueError("not a state of ours: its size differs")
        mx.eval(arrays)
        return StatePayload(tuple(arrays), header["form"])


def _bytes_of(array: mx.array, name: str) -> memoryview:
    if name in _WIDE:
        array = array.view(mx.uint16)
    return memoryview(np.asarray(array)).cast("B")  # pyright: ignore[reportArgumentType]
