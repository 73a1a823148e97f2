"""The block cache: every prefix computed once, for all models, sessions and restarts.

Belongs to one thread. A look-up is linear in the tokens asked for, compares ids and never digests alone, and leases
what it finds. Memory is under a byte budget, which only blocks that a hit has loaded while all else was leased or of a
higher class may exceed, until the hit is released.
"""

import logging
import time
from collections.abc import Callable, Iterator

from msgspec import to_builtins

from anyclaude.engine.cache import integrity
from anyclaude.engine.cache.block import PINNED, RANKS, Block, Snapshot
from anyclaude.engine.cache.budget import STALE_S, Budget
from anyclaude.engine.cache.finding import Finding
from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.keeping import For, Keeping, MakePayload
from anyclaude.engine.cache.listing import listed, own_blocks
from anyclaude.engine.cache.lookup import latest
from anyclaude.engine.cache.pins import Pins
from anyclaude.engine.cache.seam import Codec, Ids, Payload, RequestClass, Store
from anyclaude.engine.cache.statistics import CacheStatistics
from anyclaude.engine.cache.tree import Tree
from anyclaude.engine.cache.writing import QUIET_S, Writing

N_TOKENS = 256
CLOSE_S = 4.0
log = logging.getLogger(__name__)


class BlockCache:
    """With a store it needs the codec, too."""

    def __init__(
        self,
        budget_bytes: int,
        store: Store | None = None,
        codec: Codec | None = None,
        *,
        n_tokens: int = N_TOKENS,
        stale_s: float = STALE_S,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._writing = Writing(store, codec, n_tokens, clock=clock, quiet_s=quiet_s)
        budget = Budget(budget_bytes, clock=clock, stale_s=stale_s)
        pins = Pins(store.pins() if store else (), budget, store.set_pins if store else lambda _: False)
        self._tree = Tree(budget, self._writing, pins, n_tokens)
        self._finding = Finding(self._tree, store, codec)
        self._keeping = Keeping(self._tree)
        self._hear()

    def match(self, fingerprint: bytes, ids: Ids, *, needs_snapshot: bool = False, most: int | None = None) -> Hit:
        """The longest known prefix of `ids`, `most` tokens at most. `needs_snapshot`: it ends where a snapshot is."""
        self._hear()
        return self._finding.match(fingerprint, ids, needs_snapshot, most)

    def known(self, fingerprint: bytes, ids: Ids, *, needs_snapshot: bool = False, most: int | None = None) -> int:
        """How many tokens `match` would find now. Nothing is leased, counted or used by asking."""
        return self._finding.known(fingerprint, ids, needs_snapshot, most)

    def load(self, hit: Hit, most_bytes: int | None = None) -> bool:
        """Reads what is on disk only, `most_bytes` or a little more at a time; False: call again. What cannot be read
        is dropped, and the hit ends before it."""
        return self._finding.load(hit, most_bytes)

    def put(
        self,
        fingerprint: bytes,
        ids: Ids,
        start: int,
        make_payload: MakePayload,
        request_class: RequestClass = "conversation",
        *,
        is_private: bool = False,
    ) -> bool:
        """Keeps all of `ids`, of which the first `start` are in the tree already: else nothing is put.

        `make_payload(start, end)` is asked for what is missing: whole blocks, then a tail. It may begin before `start`,
        at the beginning of the block that `start` lies in. Returns whether all is kept now; without room, the first
        blocks are."""
        self._hear()
        is_whole = self._keeping.put(fingerprint, ids, start, make_payload, For(request_class, is_private))
        self._writing.offer()
        return is_whole

    def put_snapshot(
        self,
        fingerprint: bytes,
        ids: Ids,
        payload: Payload,
        request_class: RequestClass = "conversation",
        *,
        is_private: bool = False,
    ) -> bool:
        """Keeps the exact state after `ids`, whose blocks are in the tree: else it is not kept."""
        self._hear()
        is_kept = self._keeping.put_snapshot(fingerprint, ids, payload, For(request_class, is_private))
        self._writing.offer()
        return is_kept

    def tend(self) -> float | None:
        """To be called when nothing else is to be done, and when the store says so: hears and feeds it. Returns after
        how many seconds it wants to be called again; None: what waits, if anything does, waits for the store."""
        self._hear()
        return self._writing.offer()

    def flush(self, limit_s: float) -> bool:
        """Tails too are written. Whether nothing waits any more."""
        is_written = self._writing.flush(limit_s)
        self._hear()
        return is_written and not self._writing.n_waiting

    def set_budget(self, budget_bytes: int) -> None:
        """Evicts down to it at once, pinned blocks last; what is leased follows when it is released."""
        self._tree.budget.n_bytes = budget_bytes
        self._tree.make_room(0, PINNED)

    def give_up(self, n_bytes: int) -> None:
        """So much less than is held now, once: the budget stays as it is."""
        budget = self._tree.budget
        n_allowed = budget.n_bytes
        self.set_budget(max(0, budget.n_held - n_bytes))
        self.set_budget(n_allowed)

    def name_model(self, fingerprint: bytes, model: str) -> None:
        """How files and lists call it, whatever files that are there already call it."""
        self._writing.models[fingerprint] = model

    def ls(self) -> list[dict[str, object]]:
        """A line for each end of a prompt, of a shared head, and where prompts part: see `listing.Listed`."""
        tree = self._tree
        return [to_builtins(line) for line in listed(tree.roots.values(), self._writing.models, tree.pins.names)]

    def pin(self, digest: str) -> bool:
        """What leads to the one block whose digest begins so stays until nothing else is left. Whether there is one."""
        block = self._block(digest)
        if block:
            self._tree.pins.add(block)
        return block is not None

    def unpin(self, digest: str) -> bool:
        """Of the one pin whose digest begins so, whether or not its block is here. Whether there is one."""
        found = [name for name in self._tree.pins.names if name.hex().startswith(digest)]
        if len(found) == 1:
            self._tree.pins.remove(found[0])
        return len(found) == 1

    def remove(self, digest: str) -> int:
        """What the line of `ls` with that digest has of its own, and all that comes after it, in memory and on disk.
        How many blocks and snapshots."""
        block = self._block(digest)
        if not block:
            return 0
        before = set(self._tree.names)
        self._tree.drop(own_blocks(block, self._tree.pins.names)[-1])
        gone = before - self._tree.names.keys()
        if self._store:
            self._store.remove(gone)
        return len(gone)

    def clear(self) -> int:
        """Everything, in memory and on disk, pins too; how many."""
        n_known = len(self._tree.names)
        self._tree.clear()
        self._tree.pins.clear()
        return max(n_known, self._store.clear() if self._store else 0)

    @property
    def problem(self) -> str:
        """Why nothing on disk can be changed; empty if it can, or if nothing is to be there."""
        return self._store.statistics().problem if self._store else ""

    def verify(self) -> Iterator[dict[str, int]]:
        """Every file is read and checked, a bounded part at each step, and at last the tree itself: what is wrong with
        that is logged. Counts, so far."""
        found: dict[str, int] = {}
        for counts in self._store.verify() if self._store else ():
            found = dict(counts)
            yield {**found, "faults": 0}
        self._hear()
        try:
            self.check_integrity()
        except AssertionError:
            log.exception("the tree of blocks is not sound")
            yield {**found, "faults": 1}
        else:
            yield {**found, "faults": 0}

    def latest(self, fingerprint: bytes, most: int) -> Ids:
        """The first `most` ids of what this model's prompts were used last."""
        return latest(self._tree.root(fingerprint), most)

    def check_integrity(self) -> None:
        """Raises AssertionError."""
        integrity.check(self._tree)

    def close(self, limit_s: float = CLOSE_S) -> None:
        """What waits is written as far as there is time."""
        deadline = time.monotonic() + limit_s
        self.flush(limit_s)
        if self._store:
            self._store.close(max(0.2, deadline - time.monotonic()))

    def statistics(self) -> CacheStatistics:
        tree, budget, found, kept = self._tree, self._tree.budget, self._finding, self._keeping
        blocks = [held for held in tree.names.values() if isinstance(held, Block)]
        return CacheStatistics(
            budget_bytes=budget.n_bytes,
            held_bytes=budget.n_held,
            side_bytes=budget.held_by_rank[RANKS["side"]],
            conversation_bytes=budget.held_by_rank[RANKS["conversation"]],
            system_bytes=budget.held_by_rank[RANKS["system"]],
            pinned_bytes=budget.held_by_rank[PINNED],
            snapshot_bytes=budget.n_in_snapshots,
            n_blocks=len(blocks),
            n_blocks_in_memory=sum(block.payload is not None for block in blocks),
            n_snapshots=sum(isinstance(held, Snapshot) for held in tree.names.values()),
            n_leased=budget.n_leased,
            n_lookups=found.n_lookups,
            n_hits=found.n_hits,
            n_tokens_asked=found.n_asked,
            n_tokens_hit=found.n_hit,
            n_loaded=found.n_loaded,
            loaded_bytes=found.loaded_bytes,
            n_put=kept.n_put,
            put_bytes=kept.put_bytes,
            n_evicted=tree.n_evicted,
            evicted_bytes=tree.n_evicted_bytes,
            n_refused=kept.n_refused,
            n_to_write=self._writing.n_waiting,
            store=self._store.statistics() if self._store else None,
        )

    def _block(self, digest: str) -> Block | None:
        found = [
            held for held in self._tree.names.values() if isinstance(held, Block) and held.name.hex().startswith(digest)
        ]
        return found[0] if len(found) == 1 else None

    def _hear(self) -> None:
        if self._store:
            news = self._store.news()
            self._tree.hear(news)
            for fingerprint, model in news.models.items():
                self._writing.models.setdefault(fingerprint, model)
