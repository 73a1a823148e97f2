"""Work that no request waits for: a thread that writes, and a queue with a bound before it."""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable

WAITING = 500
WAITING_BYTES = 256 << 20  # what waits keeps the prompts of its turns in memory
CLOSE_S = 5.0
log = logging.getLogger(__name__)

Work = Callable[[], None]


class WriteBehind:
    """Does what it is given, in order, and `at_end` when it is closed. What fails, or finds the queue full, is counted,
    logged the first time and lost; nothing else suffers. `what` names it in the log."""

    def __init__(self, what: str, at_end: Work) -> None:
        self.n_lost = 0
        self._what = what
        self._at_end = at_end
        self._waiting: queue.Queue[Work | None] = queue.Queue(WAITING)
        self._n_bytes = 0
        self._counting = threading.Lock()
        self._is_closed = self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name=what, daemon=True)
        self._thread.start()

    def put(self, work: Work, n_bytes: int = 0) -> bool:
        """Returns at once; whether it will be tried. `n_bytes` are what the work keeps in memory until it is done."""
        if self._is_closed:
            self._lose("it is closed")
            return False
        try:
            if self._n_bytes + n_bytes > WAITING_BYTES:
                raise queue.Full
            self._waiting.put_nowait(lambda: self._run_counted(work, n_bytes))
        except queue.Full:
            self._lose("too much waits to be written")
            return False
        with self._counting:
            self._n_bytes += n_bytes
        return True

    def _run_counted(self, work: Work, n_bytes: int) -> None:
        try:
            work()
        finally:
            with self._counting:
                self._n_bytes -= n_bytes

    def flush(self) -> None:
        """Returns when everything given so far is done."""
        if not self._is_closed:
            done = threading.Event()
            self._waiting.put(done.set)
            done.wait()

    def close(self, limit_s: float = CLOSE_S) -> None:
        """Does what waits, then ends; what is not done within the limit is lost. Safe to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(queue.Full):
            self._waiting.put(None, timeout=limit_s)
        self._thread.join(limit_s)
        self._is_abandoned = True
        with contextlib.suppress(queue.Full):  # the thread may have made room by now, and wait
            self._waiting.put_nowait(None)

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            if self._is_abandoned:
                self._lose("the time to close is over")
            else:
                self._try(work)
            if self._is_abandoned and self._waiting.empty():
                break
        self._try(self._at_end)

    def _try(self, work: Work) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 (this thread's edge: whatever happens, the next is written)
            self._lose(error)

    def _lose(self, why: object) -> None:
        with self._counting:
            self.n_lost += 1
            is_first = self.n_lost == 1
        if is_first:
            log.warning("%s cannot be written: %s", self._what, why)
