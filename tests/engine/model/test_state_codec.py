"""Payloads as bytes and back: exact, and whatever else comes is a ValueError, before anything is made of it."""

from collections.abc import Callable
from math import prod
from typing import Any, cast

import mlx.core as mx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.engine.model import adapter
from anyclaude.engine.model.state import Copied, Layout, StateCodec, StatePayload
from tests.support.models import FAMILIES, Family, random_model
from tests.support.rows import Bench, some_ids

CODEC = StateCodec()
Header = dict[str, Any]


def bits(array: mx.array) -> bytes:
    return bytes(np.asarray(array.reshape(-1).view(mx.uint8)))


def through_bytes(payload: StatePayload) -> StatePayload:
    """As through a file: the header too."""
    header, buffers = CODEC.pack(payload)
    return CODEC.unpack(msgspec.msgpack.decode(msgspec.msgpack.encode(header)), memoryview(b"".join(buffers)))


@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "int32", "uint32", "int64", "uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 2, 5, 3), (7,), (), (1, 2, 0, 3)])
def test_every_type_comes_back_to_the_bit(name: str, shape: tuple[int, ...]) -> None:
    array = (mx.random.normal(shape) * 100).astype(getattr(mx, name))
    (again,) = through_bytes(StatePayload((array,))).arrays
    assert (again.dtype, again.shape) == (array.dtype, shape)
    assert bits(again) == bits(array)


def test_numbers_that_are_none_come_back_to_the_bit() -> None:
    patterns = mx.array([0x7FC0, 0x7F81, 0xFF80, 0x8000, 0x0001], mx.uint16)
    for name in ("bfloat16", "float16"):
        (again,) = through_bytes(StatePayload((patterns.view(getattr(mx, name)),))).arrays
        assert again.view(mx.uint16).tolist() == patterns.tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_snapshots_of_every_kind_come_back_and_go_on_the_same(
    family: Family, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = Bench().model(random_model(tmp_path_factory.mktemp("model") / family, family))
    caches = adapter.new_caches(model.model)
    ids = mx.array(some_ids(200))[None]
    model.model(ids, cache=caches)
    layout = Layout.of(caches, Copied())
    blocks = [(through_bytes(layout.cut(caches, 0, start, start + 100)), 100) for start in (0, 100)]
    snapshot = layout.snapshot(caches, 0)
    kept = through_bytes(snapshot)
    assert [bits(array) for array in kept.arrays] == [bits(array) for array in snapshot.arrays]
    again = layout.restore(model.model, blocks, kept if layout.needs_snapshots else None, 10)
    for token in some_ids(5, 1):
        expected, found = (model.model(mx.array([[token]]), cache=each) for each in (caches, again))
        assert mx.abs(expected - found).max().item() < 1e-5  # pyright: ignore[reportOperatorIssue]


def payload() -> StatePayload:
    arrays = (mx.arange(6).reshape(1, 2, 3).astype(mx.bfloat16), mx.arange(4).astype(mx.float32))
    return StatePayload(arrays, [[{"array": 0}, {"array": 1}, 5, 0, None, "x", True]])


DAMAGES: list[Callable[[Header], object]] = [
    lambda header: header.pop("types"),
    lambda header: header.pop("shapes"),
    lambda header: header.update(types="bfloat16"),
    lambda header: header.update(types=["bfloat16"]),
    lambda header: header.update(types=["bfloat16", "float8"]),
    lambda header: header.update(types=["bfloat16", 7]),
    lambda header: header.update(types=["bfloat16", ["float32"]]),
    lambda header: header.update(types=["bfloat16", "float16"]),
    lambda header: header.update(shapes=None),
    lambda header: header.update(shapes=[[1, 2, 3], 4]),
    lambda header: header.update(shapes=[[1, 2, 3], [4.0]]),
    lambda header: header.update(shapes=[[1, 2, 3], [True, 4]]),
    lambda header: header.update(shapes=[[1, 2, 3], ["4"]]),
    lambda header: header.update(shapes=[[-1, 2, 3], [4]]),
    lambda header: header.update(shapes=[[-1, -2, 3], [4]]),
    lambda header: header.update(shapes=[[1, 2, 3], [5]]),
    lambda header: header.update(shapes=[[1, 2, 3], [2**62, 4]]),
    lambda header: header.update(shapes=[[1, 2, 3], [2**31 - 1] * 6]),
    lambda header: header.update(shapes=[[1, 2, 3], [0, 2**63]]),
    lambda header: header.update(shapes=[[1, 2, 3], [1] * 4_000 + [4]]),
    lambda header: header.update(form=[{"array": 2}]),
    lambda header: header.update(form=[{"array": -1}]),
    lambda header: header.update(form=[{"array": "0"}]),
    lambda header: header.update(form=[{}]),
    lambda header: header.update(form=[[[[[[[[[[0]]]]]]]]]]),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_header_is_a_value_error(damage: Callable[[Header], object]) -> None:
    header, buffers = CODEC.pack(payload())
    damage(header)
    with pytest.raises(ValueError, match="not a state of ours"):
        CODEC.unpack(header, memoryview(b"".join(buffers)))


@pytest.mark.parametrize("n", [0, 1, 27, 29, 1_000])
def test_data_of_another_size_is_a_value_error(n: int) -> None:
    header, _ = CODEC.pack(payload())
    with pytest.raises(ValueError, match="its size differs"):
        CODEC.unpack(header, memoryview(bytes(n)))


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats()
    | st.sampled_from(["bfloat16", "float32", "uint8", "array", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["array", "x"]), inner, max_size=2),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(
    header=st.one_of(
        st.dictionaries(st.sampled_from(["types", "shapes", "form"]), ANYTHING),
        st.fixed_dictionaries(
            {
                "types": st.lists(st.sampled_from(["bfloat16", "float32", "uint8", "int64"]), max_size=3),
                "shapes": st.lists(st.lists(st.integers(-2, 2**33) | st.integers(0, 4), max_size=4), max_size=3),
                "form": ANYTHING,
            }
        ),
    ),
    data=st.binary(max_size=64),
)
def test_whatever_the_header_says_it_is_an_equal_payload_or_a_value_error(header: Header, data: bytes) -> None:
    before = mx.get_active_memory()
    try:
        found = CODEC.unpack(header, memoryview(data))
    except ValueError:
        return
    assert found.nbytes == len(data)
    assert [list(array.shape) for array in found.arrays] == header["shapes"]
    assert b"".join(bits(array) for array in found.arrays if array.size) == data
    assert mx.get_active_memory() - before < 1_000_000
    assert sum(prod(cast("list[int]", shape)) for shape in header["shapes"]) <= len(data)
