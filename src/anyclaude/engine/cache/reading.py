"""Reading several files at a time: the disk works on the next ones while one is being hashed, and hashing uses every
core (hashlib lets the others run). A few files ahead only, so that a long prefix is never in memory twice."""

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import TypeVar

from anyclaude.engine.cache.block_file import Damaged, read_file
from anyclaude.engine.cache.catalogue import Catalogue
from anyclaude.engine.cache.seam import Read
from anyclaude.engine.cache.waiting import Waiting

MOST_READERS = 8
LOST = -1
T = TypeVar("T")


class Reading:
    """Of one store: what it has written, and what it is about to. `changed` guards `catalogue` and `waiting`."""

    def __init__(
        self,
        changed: Condition,
        catalogue: Catalogue | None,
        waiting: Waiting,
        complain: Callable[[str, str], None],
    ) -> None:
        self.n_read = self.n_bytes = 0
        self._changed = changed
        self._catalogue = catalogue
        self._waiting = waiting
        self._complain = complain
        self._n_readers = min(MOST_READERS, max(2, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(self._n_readers, thread_name_prefix="block-reader")

    def read_many(self, names: Sequence[bytes]) -> Iterator[Read | None]:
        """In the given order; None for what is gone, or was damaged and is set aside."""
        for found in self._each(self._found, names):
            if isinstance(found, Read):
                self.n_read += 1
                self.n_bytes += len(found.data)
                yield found
            else:
                yield None

    def check(self, names: Sequence[bytes]) -> Iterator[int | None]:
        """In the given order the bytes of what is sound, `LOST`, or None for what was removed meanwhile."""
        return self._each(self._checked, names)

    def set_aside(self, name: bytes, why: str) -> bool:
        """Whether it was known."""
        with self._changed:
            return self._catalogue is not None and self._catalogue.set_aside(name, why)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _each(self, work: Callable[[bytes], T], names: Sequence[bytes]) -> Iterator[T]:
        ahead: deque[Future[T]] = deque()
        try:
            for name in names:
                ahead.append(self._pool.submit(work, name))
                if len(ahead) > self._n_readers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _checked(self, name: bytes) -> int | None:
        found = self._found(name)
        if isinstance(found, Read):
            return len(found.data)
        return LOST if found else None

    def _found(self, name: bytes) -> Read | bool:
        """What was written; else whether it should have been there. That is not looked for again."""
        catalogue = self._catalogue
        with self._changed:
            job = self._waiting.get(name)
            is_there = catalogue is not None and name in catalogue.files
        if job:
            return job.read()
        if not catalogue or not is_there:
            return False
        try:
            return read_file(catalogue.folder.descriptor, name)
        except Damaged as damage:
            return self.set_aside(name, str(damage))
        except OSError as error:
            if error.errno != errno.ENOENT:
                self._complain("read", f"a block in {catalogue.folder.path} cannot be read: {error.strerror}")
            with self._changed:
                return catalogue.forget(name)
