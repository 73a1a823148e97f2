"""Blocks on disk. Written behind by a thread of its own, once each, under a budget of bytes, one of bytes a day, and an
age; read by the caller, several files at a time.

Whatever is wrong with the disk, generation goes on: a folder that is not only ours is not used at all, one that cannot
be written or that another process writes is read only, a file that cannot be written is counted and may be tried again,
one that cannot be read is set aside. A process that only reads tries now and then to become the one that writes.
"""

import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from anyclaude.engine.cache.block_file import sync, write_file
from anyclaude.engine.cache.catalogue import Catalogue
from anyclaude.engine.cache.folder import BlockFolder
from anyclaude.engine.cache.index import File
from anyclaude.engine.cache.limits import SIDE_SHARE, StoreLimits
from anyclaude.engine.cache.reading import LOST, Reading
from anyclaude.engine.cache.seam import Buffer, Header, News, Read, RequestClass, Stored
from anyclaude.engine.cache.statistics import StoreStatistics
from anyclaude.engine.cache.waiting import Job, Waiting
from anyclaude.errors import UnsafeFolder

BATCH = 16
STEP_BYTES = 64 << 20  # that a step of `verify` reads, or a file more
CHECK_S = 5.0  # how often a process that only reads tries to write, and what has changed is told to the index
RETRY_S = 30.0  # after a write that failed
EXPIRE_S = 3600.0
log = logging.getLogger(__name__)


class BlockStore:
    """See `seam.Store`. `wake` is called, on the store's thread, when there is room for what was refused, or news."""

    def __init__(
        self,
        folder: Path,
        limits: StoreLimits | None = None,
        *,
        clock: Callable[[], float] = time.time,
        wake: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
        check_s: float = CHECK_S,
    ) -> None:
        self.path = folder
        self.limits = limits or StoreLimits()
        self._clock = clock
        self._wake = wake
        self._retry_s, self._check_s = retry_s, check_s
        self._changed = threading.Condition()
        self._waiting = Waiting()
        self._failed: list[bytes] = []
        self._evicted: list[bytes] = []
        self._refusing_until = 0.0
        self._refused: dict[RequestClass, int] = {}  # the smallest of each class
        self._is_busy = self._is_closing = False
        self._complaints: set[str] = set()
        self._n_written = self._written_bytes = self._n_failed = 0
        self._problem = ""
        self._catalogue = self._opened()
        self._reading = Reading(self._changed, self._catalogue, self._waiting, self._complain)
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        if self._catalogue:
            self._thread.start()

    def _opened(self) -> Catalogue | None:
        try:
            with ExitStack() as failed:
                folder = BlockFolder(self.path)
                failed.callback(folder.close)
                catalogue = Catalogue(folder, self.limits, self._clock)
                failed.pop_all()
                return catalogue
        except UnsafeFolder as error:
            self._problem = error.message
        except OSError as error:
            self._problem = f"{self.path}: {error.strerror}"
        log.warning("blocks are kept in memory only: %s", self._problem)
        return None

    @property
    def problem(self) -> str:
        return self._catalogue.problem if self._catalogue else self._problem

    def news(self) -> News:
        with self._changed:
            found, lost = self._catalogue.take_news() if self._catalogue else ((), ())
            models = dict(self._catalogue.models) if self._catalogue and found else {}
            news = News(found, [*self._failed, *lost], self._evicted, models)
            self._failed, self._evicted = [], []
            return news

    # ---- writing

    def has_room(self, n_bytes: int, request_class: RequestClass) -> bool:
        with self._changed:
            return self._admits(n_bytes, request_class)

    def _admits(self, n_bytes: int, request_class: RequestClass) -> bool:
        has_room = self._has_room(n_bytes, request_class)
        if not has_room:
            self._refused[request_class] = min(n_bytes, self._refused.get(request_class, n_bytes))
        return has_room

    def _has_room_again(self) -> bool:
        """For some of what was refused: said once."""
        has_room = any(self._has_room(n_bytes, request_class) for request_class, n_bytes in self._refused.items())
        if has_room:
            self._refused.clear()
        return has_room

    def _has_room(self, n_bytes: int, request_class: RequestClass) -> bool:
        catalogue, limits = self._catalogue, self.limits
        if not catalogue or catalogue.problem or self._is_closing or time.monotonic() < self._refusing_until:
            return False
        if n_bytes > limits.budget_bytes:
            return False
        share = SIDE_SHARE if request_class == "side" else 1.0
        waiting = self._waiting.n_bytes + n_bytes
        if catalogue.written_today + waiting > limits.daily_bytes * share:
            return False
        return waiting <= limits.waiting_bytes or not len(self._waiting)

    def write(
        self, entry: Stored, header: Header, buffers: Sequence[Buffer], replaces: Sequence[bytes], model: str
    ) -> bool:
        job = Job(entry, header, buffers, replaces, model)
        with self._changed:
            catalogue = self._catalogue
            if not catalogue or not self._admits(job.n_bytes, entry.request_class):
                return False
            if entry.name in catalogue.files:
                catalogue.remove(replaces)
            elif entry.name not in self._waiting:
                self._waiting.add(job)
            self._changed.notify_all()
            return True

    def _run(self) -> None:
        catalogue = self._catalogue
        assert catalogue
        expired_at = time.monotonic()
        while not (self._is_closing and not len(self._waiting)):
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) or self._is_closing, self._check_s)
                jobs = self._waiting.first(BATCH)
                self._is_busy = True
            self._write_batch(catalogue, jobs)
            if catalogue.problem:
                self._try_to_become_writer(catalogue)
            if time.monotonic() - expired_at > EXPIRE_S:
                expired_at = time.monotonic()
                with self._changed:
                    self._evicted += catalogue.expire()
            self._tell_index(catalogue)
            with self._changed:
                is_awaited = bool(self._failed or self._evicted) or self._has_room_again()
                self._is_busy = False
                self._changed.notify_all()
            if is_awaited:
                self._wake()
        self._tell_index(catalogue)
        catalogue.close()

    def _write_batch(self, catalogue: Catalogue, jobs: Sequence[Job]) -> None:
        replaced: list[bytes] = []
        try:
            for job in jobs:
                self._write(catalogue, job)
                replaced += job.replaces
            if jobs:
                sync(catalogue.folder.descriptor)  # a rename is on disk only when its folder is
        except OSError as error:
            self._fail(error)
        with self._changed:
            catalogue.remove(replaced)

    def _write(self, catalogue: Catalogue, job: Job) -> None:
        name, folder = job.entry.name, catalogue.folder
        with self._changed:
            self._evicted += catalogue.make_room(job.n_bytes)
        if folder.free_bytes() < job.n_bytes + self.limits.keep_free_bytes:
            left = self.limits.keep_free_bytes >> 20
            raise OSError(errno.ENOSPC, f"the disk is full, but for the {left} MiB that are left to others")
        size = write_file(folder.descriptor, job.entry, job.header, job.buffers, job.model)
        with self._changed:
            if written := self._waiting.remove(name):
                catalogue.add(File(written.entry, size, job.model))
                self._n_written += 1
                self._written_bytes += size
                self._evicted += catalogue.make_room(0)
            else:  # it was removed while it was written
                folder.remove(name)
            self._changed.notify_all()

    def _fail(self, error: OSError) -> None:
        """All that waits: what comes next would fail, too, and what hangs under it could not be found."""
        with self._changed:
            names = self._waiting.names()
            self._failed += names
            self._n_failed += len(names)
            self._waiting.clear()
            self._refusing_until = time.monotonic() + self._retry_s
        self._complain("write", f"blocks cannot be written to {self.path}: {error.strerror}")

    def _try_to_become_writer(self, catalogue: Catalogue) -> None:
        with self._changed:
            has_changed = catalogue.become_writer()
        if has_changed:
            log.info("%s is written by this process now", self.path)
            self._wake()

    def _tell_index(self, catalogue: Catalogue) -> None:
        if catalogue.problem:
            return
        with self._changed:
            tell = catalogue.take_changes()
        try:
            tell()
        except sqlite3.Error as error:
            self._complain("index", f"the index in {self.path} cannot be written, files will be read instead: {error}")

    def _complain(self, kind: str, text: str) -> None:
        if kind not in self._complaints:
            self._complaints.add(kind)
            log.warning("%s", text)

    # ---- reading

    def read_many(self, names: Sequence[bytes]) -> Iterator[Read | None]:
        return self._reading.read_many(names)

    def set_aside(self, name: bytes, why: str) -> None:
        self._reading.set_aside(name, why)

    def verify(self) -> Iterator[Mapping[str, int]]:
        """What is removed meanwhile does not count."""
        with self._changed:
            names = list(self._catalogue.files) if self._catalogue else []
        n_sound = n_damaged = n_bytes = n_told = 0
        for name, size in zip(names, self._reading.check(names), strict=True):
            if size == LOST:
                n_damaged += 1
                with self._changed:
                    self._failed.append(name)
            elif size is not None:
                n_sound, n_bytes = n_sound + 1, n_bytes + size
            if n_bytes - n_told >= STEP_BYTES:
                n_told = n_bytes
                yield _counts(n_sound, n_damaged, n_bytes)
        yield _counts(n_sound, n_damaged, n_bytes)

    # ---- keeping house

    def touch(self, uses: Sequence[tuple[bytes, RequestClass]], used_at: float) -> None:
        with self._changed:
            if catalogue := self._catalogue:
                catalogue.use(uses, used_at)
                self._waiting.use(uses, used_at)

    def remove(self, names: Iterable[bytes]) -> None:
        with self._changed:
            going = set(names)
            if self._catalogue and not self._catalogue.problem:
                going |= self._catalogue.remove_below(going)
            for name in going:
                self._waiting.remove(name)

    def clear(self) -> int:
        with self._changed:
            n = self._waiting.clear()
            if self._catalogue and not self._catalogue.problem:
                n += self._catalogue.clear()
                with suppress(OSError):
                    self._catalogue.folder.write_pins(frozenset())
            return n

    def pins(self) -> frozenset[bytes]:
        return self._catalogue.pins if self._catalogue else frozenset()

    def set_pins(self, names: frozenset[bytes]) -> bool:
        with self._changed:
            catalogue = self._catalogue
            if not catalogue or catalogue.problem:
                return False
            catalogue.pins = names
            try:
                catalogue.folder.write_pins(names)
            except OSError as error:
                self._complain("pins", f"pins cannot be written to {self.path}: {error.strerror}")
                return False
            return True

    def flush(self, limit_s: float) -> bool:
        """Waits until all that was given is written, or the time is over; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not len(self._waiting) and not self._is_busy, limit_s)

    def close(self, limit_s: float) -> None:
        """What is not written within the time is lost. Safe to call twice."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join(limit_s)
        self._reading.close()

    def statistics(self) -> StoreStatistics:
        with self._changed:
            catalogue = self._catalogue
            return StoreStatistics(
                folder=str(self.path),
                is_read_only=bool(self.problem),
                problem=self.problem,
                budget_bytes=self.limits.budget_bytes,
                daily_budget_bytes=self.limits.daily_bytes,
                n_files=len(catalogue.files) if catalogue else 0,
                file_bytes=catalogue.n_bytes if catalogue else 0,
                n_waiting=len(self._waiting),
                waiting_bytes=self._waiting.n_bytes,
                written_today_bytes=catalogue.written_today if catalogue else 0,
                n_written=self._n_written,
                written_bytes=self._written_bytes,
                n_failed=self._n_failed,
                n_read=self._reading.n_read,
                read_bytes=self._reading.n_bytes,
                n_set_aside=catalogue.n_set_aside if catalogue else 0,
                n_evicted=catalogue.n_evicted if catalogue else 0,
                n_expired=catalogue.n_expired if catalogue else 0,
            )


def _counts(n_sound: int, n_damaged: int, n_bytes: int) -> dict[str, int]:
    return {"files": n_sound + n_damaged, "sound": n_sound, "damaged": n_damaged, "bytes": n_bytes}
