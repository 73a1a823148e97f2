"""The cache does, step by step, what a dict of prefixes would do."""

from dataclasses import dataclass

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from anyclaude.engine.cache.block import Held, path_to, root_digest
from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.seam import RequestClass
from tests.engine.cache.memory_store import Disk, MemoryStore
from tests.engine.cache.naive import Key, Naive, Prefix, Unit
from tests.engine.cache.states import TOKEN_BYTES, SumCodec, assert_right, ids_of, maker, snapshot_of

MODEL = b"model"
BLOCK = 3
prompts = some.lists(some.integers(0, 1), min_size=1, max_size=13).map(tuple)
classes = some.sampled_from(("side", "conversation", "system"))


@dataclass
class Leased:
    hit: Hit
    units: list[tuple[Key, Unit]]
    ids: Prefix


def prefix_of(held: Held) -> Prefix:
    way = [*reversed(list(path_to(held.parent))), held]
    return tuple(int(token) for each in way for token in np.frombuffer(each.data, "<u4"))


def key_of(name: bytes, disk: Disk) -> Key | None:
    """None where what it hangs under is not on disk."""
    entry = disk.files[name].entry
    ids, parent = entry.ids, entry.parent
    while parent != root_digest(MODEL):
        if parent not in disk.files:
            return None
        ids, parent = disk.files[parent].entry.ids + ids, disk.files[parent].entry.parent
    return entry.kind, tuple(int(token) for token in np.frombuffer(ids, "<u4"))


class Steps(RuleBasedStateMachine):
    hits: Bundle[Leased] = Bundle("hits")

    @initialize(budget=some.integers(4, 40), has_store=some.booleans())
    def begin(self, budget: int, has_store: bool) -> None:
        self.store = MemoryStore(Disk()) if has_store else None
        self.naive = Naive(budget, BLOCK, is_full=not has_store)
        self.open: list[Leased] = []
        self.cache = self.opened()

    def opened(self) -> BlockCache:
        budget = self.naive.budget * TOKEN_BYTES
        codec = SumCodec() if self.store else None
        return BlockCache(budget, self.store, codec, n_tokens=BLOCK, clock=lambda: 0.0, quiet_s=0.0)

    @rule(ids=prompts, request_class=classes, is_private=some.booleans())
    def put(self, ids: Prefix, request_class: RequestClass, is_private: bool) -> None:
        is_whole = self.cache.put(MODEL, ids_of(ids), 0, maker(ids), request_class, is_private=is_private)
        assert is_whole == self.naive.put(ids, request_class, is_private)

    @rule(ids=prompts, request_class=classes, is_private=some.booleans())
    def put_snapshot(self, ids: Prefix, request_class: RequestClass, is_private: bool) -> None:
        payload = snapshot_of(ids)
        is_kept = self.cache.put_snapshot(MODEL, ids_of(ids), payload, request_class, is_private=is_private)
        assert is_kept == self.naive.put_snapshot(ids, request_class, is_private)

    @rule(target=hits, ids=prompts, needs_snapshot=some.booleans(), most=some.integers(0, 13))
    def match(self, ids: Prefix, needs_snapshot: bool, most: int) -> Leased:
        hit = self.cache.match(MODEL, ids_of(ids), needs_snapshot=needs_snapshot, most=most)
        keys, n_tokens = self.naive.match(ids[:most], needs_snapshot)
        assert hit.n_tokens == n_tokens
        units = [(key, self.naive.units[key]) for key in keys]
        for _, unit in units:
            unit.n_leases += 1
        assert [held.payload is None for held in hit.held] == [not unit.is_held for _, unit in units]
        assert self.cache.load(hit)
        for _, unit in units:
            if not unit.is_held:
                self.naive.make_room(unit.n_bytes, unit.rank)
                unit.is_held = True
        assert_right(hit, ids)
        self.open.append(Leased(hit, units, ids))
        return self.open[-1]

    @rule(leased=consumes(hits))
    def release(self, leased: Leased) -> None:
        if leased not in self.open:
            return
        self.open.remove(leased)
        assert_right(leased.hit, leased.ids)
        leased.hit.release()
        for _, unit in leased.units:
            unit.n_leases -= 1
        left = [key for key, unit in leased.units if self.naive.units.get(key) is unit]
        snapshots = [key for key in left if key[0] == "snapshot"]
        self.naive.use([*snapshots, *reversed([key for key in left if key[0] == "block"])])
        self.naive.make_room(0, 3)

    @rule(is_full=some.booleans())
    def fill_disk(self, is_full: bool) -> None:
        if self.store:
            self.store.is_full = self.naive.is_full = is_full
            self.cache.tend()
            self.naive.offer()

    @rule(choice=some.integers(0, 100), for_good=some.booleans())
    def lose_a_file(self, choice: int, for_good: bool) -> None:
        if not self.store or not self.store.disk.files:
            return
        name = list(self.store.disk.files)[choice % len(self.store.disk.files)]
        key = key_of(name, self.store.disk)
        if key:
            self.store.expire(name) if for_good else self.store.lose(name)
            self.cache.tend()
            self.naive.lose(key, for_good=for_good)

    @rule(budget=some.integers(4, 40))
    def change_budget(self, budget: int) -> None:
        self.cache.set_budget(budget * TOKEN_BYTES)
        self.naive.budget = budget
        self.naive.make_room(0, 3)

    @rule()
    def restart(self) -> None:
        if self.store:
            self.store = MemoryStore(self.store.disk)
            self.store.is_full = self.naive.is_full
            self.open = []
            self.cache = self.opened()
            self.naive.restart()

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "cache"):
            return
        self.cache.check_integrity()
        units = self.naive.units
        tree = self.cache._tree
        known = {(held.kind, prefix_of(held)): held for held in tree.names.values()}
        assert known.keys() == units.keys()
        for key, held in known.items():
            unit = units[key]
            assert (held.payload is not None, held.is_stored) == (unit.is_held, unit.is_stored), key
            assert (held.rank, held.n_leases, held.is_private) == (unit.rank, unit.n_leases, unit.is_private), key
        if self.store:
            assert len(self.store.disk.files) == len(self.naive.disk)
        assert tree.n_evicted == self.naive.n_evicted


Steps.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestSteps = Steps.TestCase
