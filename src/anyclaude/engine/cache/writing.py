"""Giving to the store, once each: what is new waits here in memory until the store has room for it.

Ancestors go first. Tails, and snapshots of conversations, wait until they were left alone for a while, because the next
turn replaces them. What is private is never given.
"""

import time
from collections.abc import Callable, Iterable

from anyclaude.engine.cache.block import Held, Snapshot
from anyclaude.engine.cache.seam import Codec, Store, Stored

QUIET_S = 10.0


class Writing:
    def __init__(
        self, store: Store | None, codec: Codec | None, n_tokens: int, *, clock: Callable[[], float], quiet_s: float
    ) -> None:
        self._store = store
        self._codec = codec
        self._n_tokens = n_tokens
        self._clock = clock
        self._quiet_s = quiet_s
        self._waiting: dict[Held, None] = {}
        self.models: dict[bytes, str] = {}

    @property
    def n_waiting(self) -> int:
        return len(self._waiting)

    def add(self, held: Held) -> None:
        if self._store and not held.is_private:
            self._waiting[held] = None

    def discard(self, held: Held) -> None:
        self._waiting.pop(held, None)

    def replace(self, old: Held, new: Held) -> None:
        """The old one's file goes as soon as the new one's is there."""
        names = [*old.replaces, *([old.name] if old.is_stored else [])]
        if self._store and new.is_stored:
            self._store.remove(names)
        else:
            new.replaces += names

    def used(self, used: Iterable[Held]) -> None:
        """The store evicts in the same order."""
        if self._store:
            self._store.touch([(held.name, held.request_class) for held in used if held.is_stored], self._clock())

    def offer(self, *, is_last: bool = False) -> float | None:
        """Gives what the store takes now; `is_last`: tails too. Seconds until more has been left alone for long enough;
        None if nothing has to, or the store takes nothing: it tells when it does again."""
        soonest: float | None = None
        for held in list(self._waiting):
            if not self._is_wanted(held):
                self.discard(held)
                continue
            wait_s = 0.0 if is_last else self._quiet_left(held)
            if wait_s > 0:
                soonest = min(soonest or wait_s, wait_s)
            elif not self.write(held) and self._is_refused(held):
                return None
        return soonest

    def write(self, held: Held) -> bool:
        """Whether the store has it now, written or about to be: and all that it hangs under, before it."""
        way = [held]
        while not way[-1].parent.is_root and not way[-1].parent.is_stored:
            way.append(way[-1].parent)
        return all(self._write(each) for each in reversed(way))

    def _write(self, held: Held) -> bool:
        store, codec = self._store, self._codec
        if not store or not codec or held.payload is None or held.is_stored or held.was_stored or held.is_private:
            return held.is_stored
        if not store.has_room(held.n_bytes, held.request_class):
            return False
        header, buffers = codec.pack(held.payload)
        model = self.models.get(held.parent.fingerprint, "")
        if store.write(_entry(held), header, buffers, held.replaces, model):
            held.is_stored, held.replaces = True, []
            self._waiting.pop(held, None)
        return held.is_stored

    def flush(self, limit_s: float) -> bool:
        """Gives everything and waits until it is written, or the time is over. Whether nothing waits any more."""
        deadline = time.monotonic() + limit_s
        while self._store:
            is_written = self._store.flush(max(0.0, deadline - time.monotonic()))
            n_before = len(self._waiting)
            self.offer(is_last=True)
            if not is_written or len(self._waiting) == n_before:
                return is_written and not self._waiting
        return True

    def _is_wanted(self, held: Held) -> bool:
        is_new = not (held.is_stored or held.was_stored or held.is_private)
        if not is_new or not held.is_in_tree or held.payload is None:
            return False
        return held.parent.is_root or held.parent.is_stored or held.parent in self._waiting

    def _is_refused(self, held: Held) -> bool:
        """The store takes nothing at all now, and not only no more of side requests."""
        is_side = held.request_class == "side"
        return not is_side and self._store is not None and not self._store.has_room(held.n_bytes, held.request_class)

    def _quiet_left(self, held: Held) -> float:
        is_passing = held.request_class != "system" if isinstance(held, Snapshot) else held.n_tokens < self._n_tokens
        return held.used_at + self._quiet_s - self._clock() if is_passing else 0.0


def _entry(held: Held) -> Stored:
    return Stored(
        name=held.name,
        kind="snapshot" if isinstance(held, Snapshot) else "block",
        fingerprint=held.parent.fingerprint,
        parent=held.parent.name,
        ids=held.data,
        start=held.start,
        n_bytes=held.n_bytes,
        request_class=held.request_class,
        used_at=held.used_at,
    )
