"""The tree of blocks with its budget: what is added, used, evicted and dropped, and what the store reports.

A block is in the tree while its payload is in memory or in the store. What leaves takes with it all that hangs below,
since that can no longer be reached; files stay until the store's own budget takes them.
"""

from collections.abc import Iterable

from anyclaude.engine.cache.block import RANKS, WIDTH, Block, Held, Root, Snapshot, digest_of, path_to, root_digest
from anyclaude.engine.cache.budget import SNAPSHOT_SHARE, Budget
from anyclaude.engine.cache.lookup import whole_prefixes
from anyclaude.engine.cache.pins import Pins
from anyclaude.engine.cache.seam import News, Payload, RequestClass, Stored
from anyclaude.engine.cache.writing import Writing


class Tree:
    def __init__(self, budget: Budget, writing: Writing, pins: Pins, n_tokens: int) -> None:
        self.pins = pins
        self.n_tokens = n_tokens
        self.budget = budget
        self.names: dict[bytes, Held] = {}
        self.roots: dict[bytes, Root] = {}
        self.n_evicted = self.n_evicted_bytes = 0
        self._writing = writing

    def root(self, fingerprint: bytes) -> Root:
        return self.roots.setdefault(fingerprint, Root(fingerprint))

    def use(self, block: Block, request_class: RequestClass = "side") -> None:
        """The block and its ancestors were used now, for a request of this class."""
        for used in path_to(block):
            self._raise_class(used, request_class)
            self.budget.touch(used)
            used.parent.children.move_to_end(used.data)
        self._writing.used(path_to(block))

    def _raise_class(self, held: Held, request_class: RequestClass) -> None:
        if RANKS[held.request_class] < RANKS[request_class]:
            self.budget.change_rank(held, lambda: setattr(held, "request_class", request_class))

    def use_snapshot(self, snapshot: Snapshot, request_class: RequestClass) -> None:
        self._raise_class(snapshot, request_class)
        self.budget.touch(snapshot)
        self._writing.used([snapshot])

    def publish(self, held: Held, is_private: bool) -> None:
        """What was private is not any more, once someone else has the same."""
        if held.is_private and not is_private:
            held.is_private = False
            self._writing.add(held)

    def add(self, held: Held, payload: Payload) -> bool:
        """Whether there is room for it, in memory or in the store. Tails that begin a new block are replaced by it."""
        if not self._keep(held, payload):
            return False
        if isinstance(held, Block):
            for tail in whole_prefixes(held.parent, held.data):
                self.replace(tail, held)
        self._enter(held)
        return True

    def replace(self, old: Held, new: Held) -> None:
        """The old one's file goes when the new one's is written. A tail's snapshots hang under its parent and stay."""
        siblings = old.parent.children if isinstance(old, Block) else old.parent.snapshots
        del siblings[old.data]
        self._forget(old)
        self._writing.replace(old, new)
        self._raise_class(new, old.request_class)
        self.pins.replaced(old, new)

    def bring_back(self, held: Held, payload: Payload) -> None:
        """The payload was read: it is in memory now, room or not."""
        held.payload, held.n_bytes = payload, payload.nbytes
        if held.is_in_tree:
            self.budget.hold(held)

    def lease(self, leased: Iterable[Held]) -> None:
        for held in leased:
            self.budget.lease(held)

    def release(self, leased: Iterable[Held]) -> None:
        """They must be used next, so that the order stays that of use."""
        for held in leased:
            self.budget.release(held)

    def make_room(self, n_bytes: int, rank: int, *, among_snapshots: bool = False) -> bool:
        """Evicts what counts as of this rank or lower. `among_snapshots`: of their share."""
        budget = self.budget
        limit = int(budget.n_bytes * SNAPSHOT_SHARE) if among_snapshots else budget.n_bytes
        if n_bytes > limit:
            return False
        while (budget.n_in_snapshots if among_snapshots else budget.n_held) + n_bytes > limit:
            if not (held := budget.victim(rank, among_snapshots=among_snapshots)):
                return False
            self.evict(held)
        return True

    def evict(self, held: Held) -> None:
        """From memory; what the store has, or takes now, stays in the tree."""
        self._writing.write(held)
        self.n_evicted += 1
        self.n_evicted_bytes += held.n_bytes
        self.budget.let_go(held)
        held.payload = None
        if not held.is_stored:
            self.drop(held)

    def drop(self, held: Held) -> None:
        """Out of the tree, with all that hangs below and the snapshots that no other block covers."""
        if isinstance(held, Block):
            del held.parent.children[held.data]
            for lost in held.below():
                self._forget(lost)
            self._drop_uncovered(held.parent)
        else:
            del held.parent.snapshots[held.data]
            self._forget(held)

    def clear(self) -> None:
        """Everything. What is leased is still of use to whom it is leased."""
        for root in self.roots.values():
            for child in list(root.children.values()):
                self.drop(child)

    def hear(self, news: News) -> None:
        """What the store reports."""
        for entry in sorted(news.found, key=lambda entry: (entry.kind, entry.start)):
            self._plant(entry)
        for names, is_over in ((news.failed, False), (news.evicted, True)):
            for held in filter(None, map(self.names.get, names)):
                held.is_stored, held.was_stored = False, is_over
                if held.payload is None:
                    self.drop(held)
                else:
                    self._writing.add(held)

    def _keep(self, held: Held, payload: Payload) -> bool:
        """In memory where there is room for it, else in the store."""
        held.payload, held.n_bytes = payload, payload.nbytes
        is_snapshot = isinstance(held, Snapshot)
        has_share = not is_snapshot or self.make_room(held.n_bytes, held.rank, among_snapshots=True)
        held.is_in_tree = has_share and self.make_room(held.n_bytes, held.rank)
        if held.is_in_tree:
            self.budget.hold(held)
            self.budget.touch(held)
            self._writing.add(held)
        else:
            held.used_at = self.budget.now()
            held.is_in_tree = self._writing.write(held)
            held.payload = None
        return held.is_in_tree

    def _drop_uncovered(self, parent: Block) -> None:
        for data, snapshot in list(parent.snapshots.items()):
            if not any(child.startswith(data) for child in parent.children):
                self.drop(snapshot)

    def _enter(self, held: Held) -> None:
        held.is_in_tree = True
        self.names[held.name] = held
        if isinstance(held, Block):
            held.parent.children[held.data] = held
        elif isinstance(held, Snapshot):
            held.parent.snapshots[held.data] = held
        self.pins.entered(held)

    def _forget(self, held: Held) -> None:
        self.pins.left(held)
        if held.payload is not None:
            self.budget.let_go(held)
        held.is_in_tree = False
        self._writing.discard(held)
        self.names.pop(held.name, None)

    def _plant(self, entry: Stored) -> None:
        """A file that was found: known from now on, read when needed. One whose parent is missing is left alone."""
        if known := self.names.get(entry.name):
            known.is_stored = True
            return
        parent = self._parent_of(entry)
        if not parent or digest_of(entry.kind, entry.parent, entry.ids) != entry.name:
            return
        if entry.kind == "snapshot":
            if not any(child.startswith(entry.ids) for child in parent.children):
                return
            held: Held = Snapshot(parent, entry.ids, entry.request_class)
        else:
            held = Block(parent, entry.ids, entry.request_class)
            self._lift(parent, entry)
        held.n_bytes, held.used_at, held.is_stored = entry.n_bytes, entry.used_at, True
        self._enter(held)

    def _parent_of(self, entry: Stored) -> Block | None:
        is_sound = 0 < len(entry.ids) <= self.n_tokens * WIDTH and len(entry.ids) % WIDTH == 0
        if not is_sound:
            return None
        if entry.parent == root_digest(entry.fingerprint):
            return self.root(entry.fingerprint) if entry.start == 0 else None
        parent = self.names.get(entry.parent)
        if not isinstance(parent, Block) or parent.n_tokens != self.n_tokens:
            return None
        return parent if parent.fingerprint == entry.fingerprint and parent.end == entry.start else None

    def _lift(self, parent: Block, entry: Stored) -> None:
        """Ancestors are never of a lower class, nor longer unused."""
        for above in path_to(parent):
            above.used_at = max(above.used_at, entry.used_at)
            self._raise_class(above, entry.request_class)
