"""Blocks and snapshots: what hangs in the tree.

A block is the state of 1 to `n_tokens` tokens after its parent; one with fewer is a tail and has no children. Its
digest is SHA-256 over the parent's digest and its ids, the root's over the model's fingerprint. A snapshot is the
exact state, after some tokens, of layers whose state cannot be cut; it hangs under the block that ends before it, with
the ids between, so it belongs to every block that begins with these.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from anyclaude.engine.cache.seam import Ids, Payload, RequestClass

WIDTH = 4  # bytes of one token id
RANKS: dict[RequestClass, int] = {"side": 0, "conversation": 1, "system": 2}
PINNED = 3


def bytes_of(ids: Ids) -> bytes:
    return np.ascontiguousarray(ids, dtype="<u4").tobytes()


def root_digest(fingerprint: bytes) -> bytes:
    return hashlib.sha256(fingerprint).digest()


def digest_of(kind: str, parent: bytes, data: bytes) -> bytes:
    """Of the ids `data` after `parent`. Snapshots have names of their own."""
    digest = hashlib.sha256(parent + data).digest()
    return digest if kind == "block" else hashlib.sha256(kind.encode() + digest).digest()


class Held:
    """A payload that is in memory, in the store, or both, and when it was last used."""

    kind = "block"

    def __init__(self, parent: "Block", data: bytes, request_class: RequestClass) -> None:
        self.parent = parent
        self.data = data
        self.request_class: RequestClass = request_class
        self.payload: Payload | None = None
        self.n_bytes = 0
        self.n_leases = 0
        self.n_pins = 0
        self.tick = 0
        self.used_at = 0.0
        self.is_stored = False
        self.was_stored = False  # and the store needed the place for others
        self.is_private = False
        self.is_in_tree = False
        self.replaces: list[bytes] = []
        self.name = digest_of(self.kind, parent.name, data)

    @property
    def n_tokens(self) -> int:
        return len(self.data) // WIDTH

    @property
    def start(self) -> int:
        """Tokens before it."""
        return self.parent.end

    @property
    def end(self) -> int:
        return self.start + self.n_tokens

    @property
    def rank(self) -> int:
        return PINNED if self.n_pins else RANKS[self.request_class]


class Block(Held):
    def __init__(self, parent: "Block", data: bytes, request_class: RequestClass = "side") -> None:
        super().__init__(parent, data, request_class)
        self.fingerprint = parent.fingerprint
        self._start = parent.end
        self.children: OrderedDict[bytes, Block] = OrderedDict()  # the least recently used first
        self.snapshots: dict[bytes, Snapshot] = {}

    @property
    def start(self) -> int:
        return self._start

    @property
    def ids(self) -> Ids:
        return np.frombuffer(self.data, dtype="<u4")

    @property
    def is_root(self) -> bool:
        return False

    def below(self) -> "Iterator[Block | Snapshot]":
        """This block and all that hangs under it, ancestors first."""
        waiting: list[Block] = [self]
        while waiting:
            block = waiting.pop()
            yield block
            yield from block.snapshots.values()
            waiting += block.children.values()


class Root(Block):
    """The start of every prompt of one model: no tokens, no payload, never evicted."""

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.name = root_digest(fingerprint)
        self.data = b""
        self._start = 0
        self.children = OrderedDict()
        self.snapshots = {}

    @property
    def is_root(self) -> bool:
        return True


class Snapshot(Held):
    kind = "snapshot"


class Piece(NamedTuple):
    """The first `n_used` tokens of a block."""

    block: Block
    n_used: int


def path_to(block: Block) -> Iterator[Block]:
    """From the block up, without the root."""
    while not block.is_root:
        yield block
        block = block.parent
