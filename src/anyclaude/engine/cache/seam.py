"""What the cache asks of others: payloads (opaque state), a codec that turns them into bytes, and a store that keeps
those. The store has a thread of its own; everything else here is called by the thread that owns the cache."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from anyclaude.engine.cache.statistics import StoreStatistics

Ids = NDArray[np.uint32]
RequestClass = Literal["side", "conversation", "system"]
Header = dict[str, object]
Buffer = bytes | memoryview


class Payload(Protocol):
    """State that someone else computed; the cache only counts it."""

    @property
    def nbytes(self) -> int: ...


class Codec(Protocol):
    """`unpack` may raise ValueError: the file is then set aside as damaged."""

    def pack(self, payload: Payload) -> tuple[Header, Sequence[Buffer]]: ...

    def unpack(self, header: Header, data: memoryview) -> Payload: ...


class Stored(Struct, frozen=True):
    """One file of a store, without its data. `name` is a digest of the rest: see `block.digest_of`.

    `parent` is the digest of the block before it (of the root, for a first one), `ids` are little-endian uint32 and
    come after `start` tokens; `n_bytes` is the payload's size in memory."""

    name: bytes
    kind: Literal["block", "snapshot"]
    fingerprint: bytes
    parent: bytes
    ids: bytes
    start: int
    n_bytes: int
    request_class: RequestClass
    used_at: float


class News(NamedTuple):
    """What happened to files since the last time. What was `failed` may be written again, what was `evicted` not.
    `models` are names by fingerprint, as the files know them."""

    found: Sequence[Stored] = ()
    failed: Sequence[bytes] = ()
    evicted: Sequence[bytes] = ()
    models: Mapping[bytes, str] = MappingProxyType({})


class Read(NamedTuple):
    """`header` and `data` are what `Codec.unpack` takes; the data was checked against its digest."""

    entry: Stored
    header: Header
    data: memoryview


class Store(Protocol):
    def news(self) -> News:
        """The first call finds all files there are."""
        ...

    def has_room(self, n_bytes: int, request_class: RequestClass) -> bool:
        """Whether `write` would be accepted now. When what was refused would be, the store tells its owner."""
        ...

    def write(
        self, entry: Stored, header: Header, buffers: Sequence[Buffer], replaces: Sequence[bytes], model: str
    ) -> bool:
        """Returns at once; the file is written behind. Accepted, it can be read from now on; `replaces` go after it."""
        ...

    def read_many(self, names: Sequence[bytes]) -> Iterator[Read | None]:
        """In the given order; None for what is gone, or was damaged and is set aside."""
        ...

    def statistics(self) -> StoreStatistics: ...

    def set_aside(self, name: bytes, why: str) -> None: ...

    def touch(self, uses: Sequence[tuple[bytes, RequestClass]], used_at: float) -> None: ...

    def remove(self, names: Iterable[bytes]) -> None:
        """These and all that comes after them."""
        ...

    def clear(self) -> int:
        """Every file, those set aside too; how many."""
        ...

    def verify(self) -> Iterator[Mapping[str, int]]:
        """Reads everything, a bounded part at each step; what is damaged is set aside. Counts to show, so far."""
        ...

    def close(self, limit_s: float) -> None: ...

    def pins(self) -> frozenset[bytes]: ...

    def set_pins(self, names: frozenset[bytes]) -> bool:
        """Whether they are on disk now."""
        ...

    def flush(self, limit_s: float) -> bool: ...
