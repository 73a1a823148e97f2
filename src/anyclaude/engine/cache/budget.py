"""The byte budget: what is held in memory, in the order in which it goes.

The lowest class goes first, in it the least recently used; what is leased never. A use of a block is a use of all its
ancestors, which are touched after it and are never of a lower class, so descendants go before ancestors.

Two rules keep old things of a high class from filling the budget for good: what nobody used for `stale_s` counts as of
the lowest class, and while system blocks hold more than half of the budget, they count as conversations. Pinned blocks
are under neither. Snapshots may hold a share of the budget only.
"""

from collections import OrderedDict
from collections.abc import Callable

from anyclaude.engine.cache.block import PINNED, RANKS, Held, Snapshot

STALE_S = 6 * 3600.0
SYSTEM_SHARE = 0.5
SNAPSHOT_SHARE = 0.5


class Budget:
    def __init__(self, n_bytes: int, *, clock: Callable[[], float], stale_s: float = STALE_S) -> None:
        self.n_bytes = n_bytes
        self.n_held = 0
        self.n_in_snapshots = 0
        self.n_leased = 0
        self.held_by_rank = [0, 0, 0, 0]
        self.now = clock
        self._stale_s = stale_s
        self._tick = 0
        self._queues = {
            (kind, rank): OrderedDict[Held, None]() for kind in ("block", "snapshot") for rank in range(PINNED + 1)
        }

    @property
    def n_queued(self) -> int:
        return sum(map(len, self._queues.values()))

    def hold(self, held: Held) -> None:
        """Counts a payload that has come into memory."""
        self.n_held += held.n_bytes
        self.held_by_rank[held.rank] += held.n_bytes
        self.n_in_snapshots += held.n_bytes if isinstance(held, Snapshot) else 0
        if not held.n_leases:
            self._queue(held)[held] = None

    def let_go(self, held: Held) -> None:
        self._queue(held).pop(held, None)
        self.n_held -= held.n_bytes
        self.held_by_rank[held.rank] -= held.n_bytes
        self.n_in_snapshots -= held.n_bytes if isinstance(held, Snapshot) else 0

    def touch(self, held: Held) -> None:
        self._tick += 1
        held.tick, held.used_at = self._tick, self.now()
        queue = self._queue(held)
        if held in queue:
            queue.move_to_end(held)

    def lease(self, held: Held) -> None:
        held.n_leases += 1
        self.n_leased += held.n_leases == 1
        self._queue(held).pop(held, None)

    def release(self, held: Held) -> None:
        """It must be touched next, so that the order stays that of use."""
        held.n_leases -= 1
        assert held.n_leases >= 0
        self.n_leased -= not held.n_leases
        if not held.n_leases and held.payload is not None and held.is_in_tree:
            self._queue(held)[held] = None

    def change_rank(self, held: Held, change: Callable[[], None]) -> None:
        """Whatever `change` does to its class or pins. It must be touched next."""
        is_counted = held.payload is not None and held.is_in_tree
        if is_counted:
            self.let_go(held)
        change()
        if is_counted:
            self.hold(held)

    def victim(self, most_rank: int, *, among_snapshots: bool = False) -> Held | None:
        """What goes next, if it counts as of `most_rank` or lower."""
        heads = [
            next(iter(queue))
            for (kind, _), queue in self._queues.items()
            if queue and (kind == "snapshot" or not among_snapshots)
        ]
        first = min(heads, key=lambda held: (self.counts_as(held), held.tick), default=None)
        return first if first and self.counts_as(first) <= most_rank else None

    def counts_as(self, held: Held) -> int:
        if held.rank == PINNED:
            return PINNED
        if self.now() - held.used_at > self._stale_s:
            return RANKS["side"]
        if held.rank == RANKS["system"] and self.held_by_rank[held.rank] > SYSTEM_SHARE * self.n_bytes:
            return RANKS["conversation"]
        return held.rank

    def _queue(self, held: Held) -> OrderedDict[Held, None]:
        return self._queues[held.kind, held.rank]
