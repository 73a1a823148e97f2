"""What was rendered and generated, as token ids that are never made anew: a tree of conversations, each node what a few
turns added. Bounded by bytes; what was used least recently goes first, and never before what hangs on it."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from anyclaude.engine.text.tokens import Ids, joined

_NODE_BYTES = 1_024


@dataclass(eq=False, slots=True)
class Node:
    """`ids` are what it adds. `is_open`: an answer of ours, whose end is not written yet; `digest` is its turn's.
    `head_end` and `day` are those of the conversation."""

    key: bytes
    parent: "Node | None"
    ids: Ids
    day: date
    head_end: int
    is_open: bool = False
    digest: bytes = b""
    is_private: bool = False
    is_saved: bool = False
    names: tuple[bytes, ...] = ()
    n_total: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_total = len(self.ids) + (self.parent.n_total if self.parent else 0)

    @property
    def nbytes(self) -> int:
        return self.ids.nbytes + _NODE_BYTES

    def path(self) -> list["Node"]:
        """From the root to here."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def all_ids(self) -> Ids:
        return joined([node.ids for node in self.path()])


class Committed:
    """The nodes in memory, by key and, where they are answers, by name."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._nodes = OrderedDict[bytes, Node]()
        self._named: dict[bytes, Node] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def longest(self, keys: Sequence[bytes]) -> tuple[int, Node] | None:
        """Which of the keys is the last one known, and its node."""
        for n in range(len(keys) - 1, 0, -1):
            if (node := self._nodes.get(keys[n])) is not None:
                return n, node
        return None

    def get(self, key: bytes) -> Node | None:
        return self._nodes.get(key)

    def named(self, names: Sequence[bytes]) -> Node | None:
        return next((self._named[name] for name in names if name in self._named), None)

    def add(self, node: Node) -> None:
        if (replaced := self._nodes.pop(node.key, None)) is not None:
            self._forget(replaced)
        self._nodes[node.key] = node
        self.nbytes += node.nbytes
        self._named |= dict.fromkeys(node.names, node)
        self.touch(node)
        while self.nbytes > self._budget and len(self._nodes) > 1:
            self._forget(self._nodes.popitem(last=False)[1])

    def touch(self, node: Node) -> None:
        """A node is older than what it hangs on, so leaves go first."""
        for each in reversed(node.path()):
            if self._nodes.get(each.key) is each:
                self._nodes.move_to_end(each.key)

    def clear(self) -> None:
        self._nodes.clear()
        self._named.clear()
        self.nbytes = 0

    def _forget(self, node: Node) -> None:
        self.nbytes -= node.nbytes
        for name in node.names:
            if self._named.get(name) is node:
                del self._named[name]
