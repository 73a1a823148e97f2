"""The block cache, said in the plainest way: a dict of prefixes. Slow, without a tree, queues or running sums."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from anyclaude.engine.cache.block import RANKS
from anyclaude.engine.cache.keeping import SNAPSHOTS_KEPT
from anyclaude.engine.cache.seam import RequestClass

Prefix = tuple[int, ...]
Key = tuple[str, Prefix]  # "block" or "snapshot", and all ids up to its end


@dataclass
class Unit:
    n_bytes: int
    rank: int
    is_private: bool = False
    used: int = 0
    n_leases: int = 0
    is_held: bool = False
    is_stored: bool = False
    is_over: bool = False  # for the disk: it had to go there once
    replaces: list[Key] = field(default_factory=list[Key])


@dataclass
class Naive:
    budget: int
    block: int
    units: dict[Key, Unit] = field(default_factory=dict[Key, Unit])
    disk: dict[Key, int] = field(default_factory=dict[Key, int])  # its rank
    is_full: bool = False
    tick: int = 0
    n_evicted: int = 0

    # ---- looking

    def floor(self, prefix: Prefix) -> int:
        """Where the block that holds the last token begins."""
        return (len(prefix) - 1) // self.block * self.block

    def blocks(self) -> Iterable[Prefix]:
        return [prefix for kind, prefix in self.units if kind == "block"]

    def way(self, prefix: Prefix) -> list[Key]:
        """The block and all above it, from the root on."""
        whole = range(self.block, self.floor(prefix) + 1, self.block)
        return [*(("block", prefix[:end]) for end in whole), ("block", prefix)]

    def find(self, ids: Prefix) -> tuple[list[Key], int]:
        """The blocks on the longest way, and the tokens of it."""
        end = 0
        while len(ids) >= end + self.block and ("block", ids[: end + self.block]) in self.units:
            end += self.block
        way = self.way(ids[:end]) if end else []
        best = (0, False, 0, ())
        for other in self.blocks():
            if self.floor(other) == end and other[:end] == ids[:end]:
                n = end
                while n < min(len(ids), len(other)) and ids[n] == other[n]:
                    n += 1
                if n > end:
                    best = max(best, (n, n == len(other), self.units["block", other].used, other))
        return ([*way, ("block", best[3])], best[0]) if best[0] else (way, end)

    def find_snapshot(self, ids: Prefix, n: int) -> Key | None:
        ends = [len(prefix) for kind, prefix in self.units if kind == "snapshot" and prefix == ids[: len(prefix)]]
        end = max((end for end in ends if end <= n), default=0)
        return ("snapshot", ids[:end]) if end else None

    def match(self, ids: Prefix, needs_snapshot: bool) -> tuple[list[Key], int]:
        """All that is leased, and the tokens."""
        way, n = self.find(ids)
        if needs_snapshot:
            snapshot = self.find_snapshot(ids, n)
            if not snapshot:
                return [], 0
            n = len(snapshot[1])
            way = [key for key in way if self.floor(key[1]) < n]
            return [snapshot, *way], n
        return way, n

    # ---- budget

    def held(self, kind: str = "") -> int:
        return sum(unit.n_bytes for key, unit in self.units.items() if unit.is_held and (not kind or key[0] == kind))

    def counts_as(self, unit: Unit) -> int:
        held = sum(each.n_bytes for each in self.units.values() if each.is_held and each.rank == RANKS["system"])
        return RANKS["conversation"] if unit.rank == RANKS["system"] and held > self.budget / 2 else unit.rank

    def make_room(self, n_bytes: int, rank: int, kind: str = "") -> bool:
        limit = self.budget // 2 if kind else self.budget
        if n_bytes > limit:
            return False
        while self.held(kind) + n_bytes > limit:
            going = [
                (self.counts_as(unit), unit.used, key)
                for key, unit in self.units.items()
                if unit.is_held and not unit.n_leases and (not kind or key[0] == kind)
            ]
            if not going or min(going)[0] > rank:
                return False
            self.evict(min(going)[2])
        return True

    def evict(self, key: Key) -> None:
        self.write(key)
        self.n_evicted += 1
        self.units[key].is_held = False
        if not self.units[key].is_stored:
            self.drop(key)

    def drop(self, key: Key) -> None:
        kind, prefix = key
        del self.units[key]
        if kind == "block" and len(prefix) % self.block == 0:
            for below in [other for other in self.units if other[1][: len(prefix)] == prefix]:
                if len(below[1]) > len(prefix):
                    del self.units[below]
        for kind, lost in list(self.units):
            if kind == "snapshot" and not self.is_covered(lost):
                del self.units[kind, lost]

    def is_covered(self, prefix: Prefix) -> bool:
        start = self.floor(prefix)
        return any(self.floor(block) == start and block[: len(prefix)] == prefix for block in self.blocks())

    # ---- disk

    def write(self, key: Key) -> bool:
        above = self.way(key[1])[:-1]
        return all(self._write(each) for each in [*above, key])

    def _write(self, key: Key) -> bool:
        unit = self.units[key]
        if unit.is_stored:
            return True
        if not unit.is_held or unit.is_private or unit.is_over or self.is_full:
            return False
        unit.is_stored = True
        self.disk[key] = unit.rank
        for replaced in unit.replaces:
            self.disk.pop(replaced, None)
        unit.replaces = []
        return True

    def offer(self) -> None:
        for key in sorted(self.units, key=lambda key: len(key[1])):
            self.write(key)

    def lose(self, key: Key, *, for_good: bool) -> None:
        """A file is gone."""
        self.disk.pop(key)
        if unit := self.units.get(key):
            unit.is_stored, unit.is_over = False, for_good
            if not unit.is_held:
                self.drop(key)
        self.offer()

    def use(self, keys: Iterable[Key], rank: int = 0) -> None:
        """In this order, the last one last."""
        for key in keys:
            self.tick += 1
            unit = self.units[key]
            unit.used, unit.rank = self.tick, max(unit.rank, rank)
            if unit.is_stored:
                self.disk[key] = unit.rank

    def restart(self) -> None:
        """What is on disk and hangs together is known, none of it held."""
        self.units, self.n_evicted = {}, 0
        for key in sorted(self.disk, key=lambda key: (key[0], self.floor(key[1]))):
            kind, prefix = key
            above = self.way(prefix)[:-1]
            is_reached = all(each in self.units for each in above)
            if is_reached and (kind == "block" or self.is_covered(prefix)):
                self.tick += 1
                self.units[key] = Unit(self.size(key), self.disk[key], used=self.tick, is_stored=True)
                if kind == "block":
                    for each in above:
                        self.units[each].rank = max(self.units[each].rank, self.disk[key])

    # ---- keeping

    def size(self, key: Key) -> int:
        return len(key[1]) - self.floor(key[1]) if key[0] == "block" else 1

    def put(self, ids: Prefix, request_class: RequestClass, is_private: bool) -> bool:
        way: list[Key] = []
        is_whole = True
        for start in range(0, len(ids), self.block):
            part = ids[: start + self.block]
            key = self._covering(part) or self._put(part, RANKS[request_class], is_private)
            if not key:
                is_whole = False
                break
            if not is_private:
                self.units[key].is_private = False
            self.units[key].n_leases += 1
            way.append(key)
        for key in way:
            self.units[key].n_leases -= 1
        self.use(reversed(way), RANKS[request_class])
        self.offer()
        return is_whole

    def _covering(self, part: Prefix) -> Key | None:
        way, n = self.find(part)
        return way[-1] if n == len(part) else None

    def _put(self, part: Prefix, rank: int, is_private: bool) -> Key | None:
        key: Key = ("block", part)
        if not self._keep(key, Unit(self.size(key), rank, is_private)):
            return None
        start = self.floor(part)
        for end in range(len(part) - 1, start, -1):
            if ("block", part[:end]) in self.units:
                self._replace(("block", part[:end]), key)
        return key

    def _keep(self, key: Key, unit: Unit) -> bool:
        has_share = key[0] == "block" or self.make_room(unit.n_bytes, unit.rank, "snapshot")
        unit.is_held = has_share and self.make_room(unit.n_bytes, unit.rank)
        self.tick += 1
        unit.used = self.tick
        self.units[key] = unit
        if not unit.is_held:
            unit.is_held = True
            self.write(key)
            unit.is_held = False
            if not unit.is_stored:
                del self.units[key]
        return key in self.units

    def _replace(self, old: Key, new: Key) -> None:
        gone, unit = self.units.pop(old), self.units[new]
        unit.rank = max(unit.rank, gone.rank)
        names = [*gone.replaces, *([old] if gone.is_stored else [])]
        if unit.is_stored:
            for name in names:
                self.disk.pop(name, None)
        else:
            unit.replaces += names

    def put_snapshot(self, ids: Prefix, request_class: RequestClass, is_private: bool) -> bool:
        way, n = self.find(ids)
        if not ids or n != len(ids):
            return False
        for key in way:
            self.units[key].n_leases += 1
            self.units[key].is_private = self.units[key].is_private and is_private
        is_kept = self._put_snapshot(("snapshot", ids), RANKS[request_class], is_private)
        for key in way:
            self.units[key].n_leases -= 1
        self.use(reversed(way), RANKS[request_class])
        self.offer()
        return is_kept

    def _put_snapshot(self, key: Key, rank: int, is_private: bool) -> bool:
        if known := self.units.get(key):
            known.is_private = known.is_private and is_private
            self.use([key], rank)
            return True
        if not self._keep(key, Unit(1, rank, is_private)):
            return False
        ids = key[1]
        ends = [len(prefix) for kind, prefix in self.units if kind == "snapshot" and prefix == ids[: len(prefix)]]
        older: list[Key] = [("snapshot", ids[:end]) for end in sorted(ends, reverse=True) if end < len(ids)]
        passing = [each for each in older if self.units[each].rank <= 1 and not self.units[each].n_leases]
        for each in passing[SNAPSHOTS_KEPT - 1 :]:
            self._replace(each, key)
        return True
