"""A model's state (keys, values, recurrent arrays) cut into payloads for the block cache, and put together again.

Layers with a plain KVCache can be cut at any token; the state of all others (recurrent, sliding window) is taken whole,
as a snapshot that is right at one token only. Everything here runs on the thread that owns the arrays, and every copy
of state is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from math import prod
from typing import Any, cast

import mlx.core as mx
import numpy as np

from anyclaude.engine.cache.seam import Payload
from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import KeyValueCache, LayerCache, Model

ROOM = 512  # positions beyond the prompt, so that an answer begins without a copy of the state
_WIDE = {"bfloat16": mx.bfloat16}  # numpy has no such type: its bits travel as 16-bit integers
_DTYPES: dict[str, mx.Dtype] = {
    name: getattr(mx, name) for name in ("float32", "float16", "int32", "uint32", "int64", "uint8", "uint16")
} | dict.fromkeys(_WIDE, mx.uint16)
_MOST_DIMENSIONS, _LONGEST, _DEEPEST_FORM = 8, 2**31 - 1, 8


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
    """Bytes of state copied since the engine started: out of live rows, into new ones, when a row joins a batch or
    leaves it (either writes the whole batch anew, padding too), and when a row outgrows its arrays."""

    stored: int = 0
    restored: int = 0
    joined: int = 0
    left: int = 0
    grown: int = 0


@dataclass
class Layout:
    """Which layers of one model can be cut, and what its state takes: of cuttable layers `token_bytes` for each token,
    of all others `whole_bytes`, which grows to the largest that was seen."""

    cuttable: tuple[bool, ...]
    copied: Copied
    token_bytes: int
    whole_bytes: int
    can_join: bool

    @classmethod
    def of(cls, caches: Sequence[LayerCache], copied: Copied) -> "Layout":
        """`caches` hold some tokens."""
        cuttable = tuple(adapter.is_cuttable(cache) for cache in caches)
        cut = [cache for cache, is_cut in zip(caches, cuttable, strict=True) if is_cut]
        token_bytes = sum(cache.nbytes // cast("mx.array", cast("KeyValueCache", cache).keys).shape[2] for cache in cut)
        return cls(cuttable, copied, token_bytes, nbytes_of(caches) - nbytes_of(cut), adapter.can_join(caches))

    @property
    def needs_snapshots(self) -> bool:
        return not all(self.cuttable)

    def row_bytes(self, n_tokens: int) -> int:
        """What a row of its own with room for so many tokens takes."""
        return self.token_bytes * n_tokens + self.whole_bytes

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
        whole = adapter.row_of(whole, row)
        arrays: list[mx.array] = []
        form = [_taken_apart(cache.state, arrays) for cache in whole]
        kept = tuple(mx.contiguous(array) for array in arrays)
        mx.eval(kept)
        payload = StatePayload(kept, form)
        self.whole_bytes = max(self.whole_bytes, payload.nbytes)
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


def number(array: mx.array) -> float:
    """The one value of an array: waits until it is computed."""
    return float(cast("float", array.item()))


def nbytes_of(caches: Sequence[LayerCache]) -> int:
    return sum(cache.nbytes for cache in caches if not _is_fresh(cache))


def _is_fresh(cache: LayerCache) -> bool:
    return cast("Any", cache).empty()


def _row(cache: LayerCache, row: int) -> tuple[mx.array, mx.array, int]:
    if adapter.is_batched(cache):
        return adapter.batched_row(cache, row)
    plain = cast("KeyValueCache", cache)
    assert plain.keys is not None
    assert plain.values is not None
    return plain.keys, plain.values, 0


def _joined(pieces: Sequence[tuple[StatePayload, int]], place: int, room: int) -> mx.array:
    """Blocks and room in one copy."""
    parts = [payload.arrays[place] for payload, _ in pieces]
    parts = [part if part.shape[2] == n else part[:, :, :n] for part, (_, n) in zip(parts, pieces, strict=True)]
    return mx.concatenate([*parts, _room(parts[0], room)], axis=2)


def _with_room(array: mx.array, room: int) -> mx.array:
    return mx.concatenate([array, _room(array, room)], axis=2)


def _room(array: mx.array, room: int) -> mx.array:
    return mx.zeros((*array.shape[:2], room, array.shape[3]), array.dtype)


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
        """Raises ValueError for what `pack` did not write, before anything is made of it."""
        described = _described(header)
        _check_form(header.get("form"), len(described), 0)
        ends = list(accumulate(prod(shape) * _DTYPES[name].size for name, shape in described))
        if (ends or [0])[-1] != len(data):
            raise ValueError("not a state of ours: its size differs")
        starts = [0, *ends[:-1]]
        arrays = [
            _array(name, shape, data[start:end])
            for (name, shape), start, end in zip(described, starts, ends, strict=False)
        ]
        mx.eval(arrays)
        return StatePayload(tuple(arrays), header.get("form"))


def _described(header: dict[str, Any]) -> list[tuple[str, list[int]]]:
    names, shapes = header.get("types"), header.get("shapes")
    if not isinstance(names, list) or not isinstance(shapes, list):
        raise ValueError("not a state of ours: no types or no shapes")
    described = list(zip_longest(cast("list[object]", names), cast("list[object]", shapes)))
    for name, shape in described:
        if not (isinstance(name, str) and name in _DTYPES and isinstance(shape, list)):
            raise ValueError("not a state of ours: an unknown type, or no shape")
        sizes = cast("list[object]", shape)
        if len(sizes) > _MOST_DIMENSIONS or not all(type(n) is int and 0 <= n <= _LONGEST for n in sizes):
            raise ValueError("not a state of ours: an impossible shape")
    return cast("list[tuple[str, list[int]]]", described)


def _check_form(form: object, n_arrays: int, depth: int) -> None:
    if depth > _DEEPEST_FORM:
        raise ValueError("not a state of ours: nested too deeply")
    if isinstance(form, dict):
        place = cast("dict[object, object]", form).get("array")
        if type(place) is not int or not 0 <= place < n_arrays:
            raise ValueError("not a state of ours: no such array")
    elif isinstance(form, list):
        for each in cast("list[object]", form):
            _check_form(each, n_arrays, depth + 1)


def _array(name: str, shape: Sequence[int], data: memoryview) -> mx.array:
    kind = _DTYPES[name]
    raw = np.frombuffer(data, np.dtype(str(kind).rpartition(".")[2])).reshape(shape)
    return mx.array(raw).view(_WIDE[name]) if name in _WIDE else mx.array(raw)


def _bytes_of(array: mx.array, name: str) -> memoryview:
    if name in _WIDE:
        array = array.view(mx.uint16)
    flat = np.asarray(array.reshape(-1))
    return memoryview(flat).cast("B") if flat.size else memoryview(b"")  # pyright: ignore[reportArgumentType]
