"""Hits: found, leased, read from the store where they are not in memory, released."""

from collections.abc import Sequence
from itertools import takewhile

from anyclaude.engine.cache.block import PINNED, Held, Piece, bytes_of
from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.lookup import cut, deepest_snapshot, find
from anyclaude.engine.cache.seam import Codec, Ids, Payload, Read, Store, Stored
from anyclaude.engine.cache.tree import Tree


class Finding:
    def __init__(self, tree: Tree, store: Store | None, codec: Codec | None) -> None:
        self.n_lookups = self.n_hits = self.n_asked = self.n_hit = self.n_loaded = self.loaded_bytes = 0
        self._tree = tree
        self._store = store
        self._codec = codec

    def match(self, fingerprint: bytes, ids: Ids, needs_snapshot: bool, most: int | None) -> Hit:
        data = bytes_of(ids[:most])
        hit = Hit(fingerprint, data, needs_snapshot=needs_snapshot, release=self._release)
        self._set_pieces(hit, find(self._tree.root(fingerprint), data, self._tree.n_tokens))
        self.n_lookups += 1
        self.n_hits += bool(hit.pieces)
        self.n_asked += len(ids)
        self.n_hit += hit.n_tokens
        return hit

    def known(self, fingerprint: bytes, ids: Ids, needs_snapshot: bool, most: int | None) -> int:
        data, root = bytes_of(ids[:most]), self._tree.root(fingerprint)
        pieces = find(root, data, self._tree.n_tokens)
        if needs_snapshot:
            kept = deepest_snapshot(root, pieces, data)
            return kept.end if kept else 0
        return sum(piece.n_used for piece in pieces)

    def load(self, hit: Hit, most_bytes: int | None) -> bool:
        n_read = 0
        while wanted := hit.to_load:
            if most_bytes is not None and n_read >= most_bytes:
                return False
            batch = wanted if most_bytes is None else _first(wanted, most_bytes - n_read)
            n_read += sum(held.n_bytes for held in batch)
            self._read(hit, batch)
        return True

    def _read(self, hit: Hit, wanted: Sequence[Held]) -> None:
        assert self._store, "only a store makes blocks that are not in memory"
        reads = self._store.read_many([held.name for held in wanted])
        for held, read in zip(wanted, reads, strict=True):
            payload = self._unpacked(held, read)
            if payload is None:
                self._give_up(hit, held)
                return
            self._tree.make_room(payload.nbytes, held.rank)
            self._tree.bring_back(held, payload)
            self.n_loaded += 1
            self.loaded_bytes += payload.nbytes

    def _unpacked(self, held: Held, read: Read | None) -> Payload | None:
        assert self._store
        assert self._codec, "a store needs a codec"
        if not read or not _is_the_same(read.entry, held):
            return None
        try:
            return self._codec.unpack(read.header, read.data)
        except ValueError as error:
            self._store.set_aside(held.name, str(error))
            return None

    def _give_up(self, hit: Hit, held: Held) -> None:
        """What cannot be read leaves the tree, and the hit ends before it."""
        if held.is_in_tree:
            self._tree.drop(held)
        usable = takewhile(lambda piece: piece.block.payload is not None or piece.block.is_in_tree, hit.pieces)
        self._set_pieces(hit, list(usable))

    def _set_pieces(self, hit: Hit, pieces: list[Piece]) -> None:
        """What the hit held is released, what it holds now is leased."""
        before = hit.held
        hit.kept = None
        if hit.needs_snapshot:
            hit.kept = deepest_snapshot(self._tree.root(hit.fingerprint), pieces, hit.data)
            pieces = cut(pieces, hit.kept.end) if hit.kept else []
        hit.pieces = pieces
        self._tree.lease(hit.held)
        self._tree.release(before)

    def _release(self, hit: Hit) -> None:
        self._tree.release(hit.held)
        if hit.kept and hit.kept.is_in_tree:
            self._tree.use_snapshot(hit.kept, hit.kept.request_class)
        path = [piece.block for piece in hit.pieces if piece.block.is_in_tree]
        if path:
            self._tree.use(path[-1])
        self._tree.make_room(0, PINNED)


def _is_the_same(entry: Stored, held: Held) -> bool:
    """By what it is made of, not by its name alone."""
    parent = held.parent
    return (entry.fingerprint, entry.parent, entry.ids) == (parent.fingerprint, parent.name, held.data)


def _first(wanted: Sequence[Held], n_bytes: int) -> list[Held]:
    """As many as hold `n_bytes`, the last one may hold more; at least one."""
    batch: list[Held] = []
    for held in wanted:
        batch.append(held)
        n_bytes -= held.n_bytes
        if n_bytes <= 0:
            break
    return batch
