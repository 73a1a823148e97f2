"""Reading several files at a time: the disk works on the next ones while one is being hashed, and hashing uses every
core (hashlib lets the others run). A few files ahead only, so that a long prefix is never in memory twice."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from anyclaude.engine.cache.seam import Read

MOST_READERS = 8


class Readers:
    def __init__(self, read: Callable[[bytes], Read | None]) -> None:
        self._read = read
        self._n_readers = min(MOST_READERS, max(2, os.cpu_count() or 2))
        self._pool = ThreadPoolExecutor(self._n_readers, thread_name_prefix="block-reader")

    def read_many(self, names: Sequence[bytes]) -> Iterator[Read | None]:
        """In the given order."""
        ahead: deque[Future[Read | None]] = deque()
        try:
            for name in names:
                ahead.append(self._pool.submit(self._read, name))
                if len(ahead) > self._n_readers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
