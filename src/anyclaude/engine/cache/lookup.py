"""Finding ids in the tree: linear in their number, and always by the ids themselves.

Children are keyed by their ids. Under a node, a child that is a whole prefix of what is looked for is found however
many children there are; one of which only a part can be used, among the `SCANNED` most recently used. So when very many
sessions hang under one node, one of the older ones may be found shorter by less than a block: it costs tokens that are
computed again, and nothing else.
"""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from anyclaude.engine.cache.block import WIDTH, Block, Piece, Snapshot
from anyclaude.engine.cache.seam import Ids

SCANNED = 64


def find(root: Block, data: bytes, n_tokens: int) -> list[Piece]:
    """The longest way into the tree that `data` goes: whole blocks, then a part of one or a tail."""
    pieces: list[Piece] = []
    node, at, width = root, 0, n_tokens * WIDTH
    while (child := node.children.get(data[at : at + width])) and child.n_tokens == n_tokens:
        pieces.append(Piece(child, n_tokens))
        node, at = child, at + width
    if at < len(data) and node.children and (last := _longest(node, data[at : at + width])):
        pieces.append(last)
    return pieces


def shares(one: bytes, other: bytes) -> int:
    """How many tokens two runs of ids have in common at their start."""
    n = min(len(one), len(other)) // WIDTH
    differs = np.frombuffer(one, "<u4", n) != np.frombuffer(other, "<u4", n)
    return int(differs.argmax()) if differs.any() else n


def covering(node: Block, data: bytes) -> Block | None:
    """A child that begins with all of `data`."""
    piece = _longest(node, data)
    return piece.block if piece and piece.n_used * WIDTH == len(data) else None


def whole_prefixes(node: Block, data: bytes) -> list[Block]:
    """The children that are shorter than `data` and begin it, the longest first."""
    if not node.children:
        return []
    lengths = range(len(data) - WIDTH, 0, -WIDTH)
    return [child for length in lengths if (child := node.children.get(data[:length]))]


def _longest(node: Block, data: bytes) -> Piece | None:
    if child := node.children.get(data):
        return Piece(child, child.n_tokens)
    whole = whole_prefixes(node, data)
    best = Piece(whole[0], whole[0].n_tokens) if whole else None
    for child in islice(reversed(node.children.values()), SCANNED):
        n_shared = shares(child.data, data)
        if n_shared > (best.n_used if best else 0):
            best = Piece(child, n_shared)
    return best


def deepest_snapshot(root: Block, pieces: list[Piece], data: bytes) -> Snapshot | None:
    """The last snapshot on the way that `pieces` go."""
    length = sum(piece.n_used for piece in pieces) * WIDTH
    last = pieces[-1].block if pieces else root
    return next(snapshots_on_the_way(last, data[:length]), None)


def snapshots_on_the_way(last: Block, data: bytes) -> Iterator[Snapshot]:
    """Those that `data` passes, under `last` and its ancestors, the deepest first."""
    node: Block | None = last
    while node:
        there = [kept for kept in node.snapshots.values() if kept.is_in_tree or kept.payload is not None]
        passed = [kept for kept in there if data.startswith(kept.data, node.end * WIDTH)]
        yield from sorted(passed, key=lambda kept: -len(kept.data))
        node = None if node.is_root else node.parent


def latest(root: Block, most: int) -> Ids:
    """The first `most` ids of the way that was used last. After a restart children are in no order: by the clock."""
    parts: list[bytes] = []
    node, n_bytes = root, 0
    while node.children and n_bytes < most * WIDTH:
        node = max(reversed(node.children.values()), key=lambda child: child.used_at)
        parts.append(node.data)
        n_bytes += len(node.data)
    return np.frombuffer(b"".join(parts)[: most * WIDTH], "<u4")


def cut(pieces: list[Piece], n_tokens: int) -> list[Piece]:
    """The first `n_tokens` of them."""
    short: list[Piece] = []
    for block, n_used in pieces:
        if block.start >= n_tokens:
            break
        short.append(Piece(block, min(n_used, n_tokens - block.start)))
    return short
