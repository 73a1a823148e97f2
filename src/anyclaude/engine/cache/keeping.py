"""Putting: what is missing is made, block by block from the start on, and kept where there is room for it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from msgspec import Struct

from anyclaude.engine.cache.block import RANKS, WIDTH, Block, Snapshot, bytes_of
from anyclaude.engine.cache.lookup import covering, find, snapshots_on_the_way
from anyclaude.engine.cache.seam import Ids, Payload, RequestClass
from anyclaude.engine.cache.tree import Tree

SNAPSHOTS_KEPT = 4  # of one conversation: the last ones
MakePayload = Callable[[int, int], Payload]


class For(Struct, frozen=True):
    """Whose state it is: the class of the request, and whether it may be written to disk."""

    request_class: RequestClass
    is_private: bool


class Keeping:
    def __init__(self, tree: Tree) -> None:
        self.n_put = self.put_bytes = self.n_refused = 0
        self._tree = tree

    def put(self, fingerprint: bytes, ids: Ids, start: int, make_payload: MakePayload, whose: For) -> bool:
        data, width = bytes_of(ids), self._tree.n_tokens * WIDTH
        node: Block = self._tree.root(fingerprint)
        with self._path(whose) as path:
            for at in range(0, len(data), width):
                part = data[at : at + width]
                is_known = covering(node, part) if len(part) < width else node.children.get(part)
                if not is_known and node.end + self._tree.n_tokens <= start:
                    return False
                child = is_known or self._add(node, part, make_payload, whose)
                if not child:
                    return False
                self._enter(path, child, whose)
                node = child
        return True

    def put_snapshot(self, fingerprint: bytes, ids: Ids, payload: Payload, whose: For) -> bool:
        data = bytes_of(ids)
        pieces = find(self._tree.root(fingerprint), data, self._tree.n_tokens)
        if not pieces or sum(piece.n_used for piece in pieces) != len(ids):
            return False
        with self._path(whose) as path:
            for piece in pieces:
                self._enter(path, piece.block, whose)
            return self._keep_snapshot(path[-1].parent, data, payload, whose)

    @contextmanager
    def _path(self, whose: For) -> Generator[list[Block]]:
        """The blocks from the root on, leased while more is put under them, and used by this when it is done."""
        path: list[Block] = []
        try:
            yield path
        finally:
            self._tree.release(path)
            if path:
                self._tree.use(path[-1], whose.request_class)

    def _enter(self, path: list[Block], block: Block, whose: For) -> None:
        path.append(block)
        self._tree.lease([block])
        self._tree.publish(block, whose.is_private)

    def _add(self, parent: Block, data: bytes, make_payload: MakePayload, whose: For) -> Block | None:
        payload = make_payload(parent.end, parent.end + len(data) // WIDTH)
        block = Block(parent, data, whose.request_class)
        block.is_private = whose.is_private
        return block if self._counted(self._tree.add(block, payload), payload) else None

    def _keep_snapshot(self, parent: Block, data: bytes, payload: Payload, whose: For) -> bool:
        snapshot = Snapshot(parent, data[parent.end * WIDTH :], whose.request_class)
        if known := parent.snapshots.get(snapshot.data):
            self._tree.publish(known, whose.is_private)
            self._tree.use_snapshot(known, whose.request_class)
            return True
        snapshot.is_private = whose.is_private
        if not self._counted(self._tree.add(snapshot, payload), payload):
            return False
        self._drop_older(snapshot, data)
        return True

    def _drop_older(self, snapshot: Snapshot, data: bytes) -> None:
        """Of one conversation only the last few are of use; those of its head stay."""
        older = snapshots_on_the_way(snapshot.parent, data[: (snapshot.end - 1) * WIDTH])
        passing = [kept for kept in older if kept.rank <= RANKS["conversation"] and not kept.n_leases]
        for kept in passing[SNAPSHOTS_KEPT - 1 :]:
            self._tree.replace(kept, snapshot)

    def _counted(self, is_kept: bool, payload: Payload) -> bool:
        self.n_refused += not is_kept
        self.n_put += is_kept
        self.put_bytes += payload.nbytes
        return is_kept
