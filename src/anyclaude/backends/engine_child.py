"""One life of the engine's process, from its start to its end, and the socket to it.

Whatever ends it (a signal, an exit, bytes that are no frames, silence of its socket) ends every request that it had,
within a second and with `Overloaded`, and leaves no process behind. It has no terminal and no descriptor of ours but
its end of the socket, and goes when that is closed.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

import anyio
import anyio.to_thread
import msgspec
from msgspec import Struct

from anyclaude import __version__
from anyclaude.backends.engine_inbox import Inbox
from anyclaude.errors import ApiError, BackendFailed, InvalidRequest, Overloaded
from anyclaude.paths import make_if_possible
from anyclaude.wire.frames import (
    BadFrame,
    Cancel,
    FrameReader,
    Ready,
    Report,
    Request,
    decode_report,
    encode_frame,
)

START_S = 60.0
END_S, ASKED_S, KILLED_S = 3.5, 1.0, 0.5  # to write down what it keeps; then it is asked to end, then it is killed
_EXIT_S = 0.5  # between the end of the socket and that of the process, whichever comes first
_MAX_ERRORS_FILE = 1 << 20
_SHOWN = 400


class EngineCommand(Struct, frozen=True, kw_only=True):
    """How the engine is started. `cache` is its folder for KV blocks, `options` what it is told."""

    cache: Path
    log_file: Path
    options: dict[str, object] = {}
    program: tuple[str, ...] = (sys.executable, "-P", "-m", "anyclaude.engine.child")

    @property
    def errors_file(self) -> Path:
        """What it and its libraries write when they break."""
        return self.log_file.with_suffix(".err")

    def spawn(self) -> "Spawned":
        """Waits for the system. Raises OSError or UnsafeFolder."""
        make_if_possible(self.cache)  # without it the engine keeps nothing on disk, and says so in its log
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._open_errors() as errors:
                mark = os.fstat(errors.fileno()).st_size
                process = subprocess.Popen(  # noqa: S603
                    self._arguments(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    cwd="/",
                    start_new_session=True,
                    pass_fds=[theirs.fileno()],
                )
            ours.setblocking(False)
        except BaseException:
            ours.close()
            raise
        return Spawned(process, ours, mark)

    def _arguments(self, descriptor: int) -> list[str]:
        options = msgspec.json.encode(self.options).decode()
        return [*self.program, str(descriptor), str(self.cache), str(self.log_file), options]

    def _open_errors(self) -> BinaryIO:
        """Started anew when it has grown."""
        path = self.errors_file
        if path.exists() and path.stat().st_size > _MAX_ERRORS_FILE:
            path.unlink()
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab")

    def last_words(self, mark: int) -> str:
        """The last line that was written behind `mark`, where one process began."""
        with contextlib.suppress(OSError), self.errors_file.open("rb") as file:
            file.seek(max(mark, file.seek(0, os.SEEK_END) - 4096))
            lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines()]
            return next((line[:_SHOWN] for line in reversed(lines) if line), "")
        return ""


class Spawned(Struct, frozen=True):
    """A process that runs, our end of its socket, and where its errors begin in their file."""

    process: "subprocess.Popen[bytes]"
    socket: socket.socket
    mark: int


class Child(asyncio.Protocol):
    """`ready` is what it said of itself, `ended` says why it is gone. Everything happens on the event loop's thread."""

    def __init__(self, command: EngineCommand, spawned: Spawned, on_end: Callable[["Child"], None]) -> None:
        self.ready: Ready | None = None
        self.ended: str | None = None
        self._command = command
        self._process = spawned.process
        self._mark = spawned.mark
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
        self._reader = FrameReader()
        self._inboxes: dict[int, Inbox] = {}
        self._transport: asyncio.Transport | None = None
        self._is_lost = False
        self._is_told_to_end = False
        self._is_other_version = False
        self._exit_code: int | None = None
        self._exited = asyncio.Event()
        self._has_begun = asyncio.Event()  # is ready, or never will be
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._writing = asyncio.Lock()

    @classmethod
    async def start(cls, command: EngineCommand, on_end: Callable[["Child"], None]) -> "Child":
        """A process that runs; it is not ready yet. Raises OSError or UnsafeFolder."""
        spawned = await anyio.to_thread.run_sync(command.spawn)
        child = cls(command, spawned, on_end)
        threading.Thread(target=child._wait, daemon=True).start()
        try:
            await child._loop.create_unix_connection(lambda: child, sock=spawned.socket)
        except BaseException:
            spawned.process.kill()
            spawned.socket.close()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def n_running(self) -> int:
        return len(self._inboxes)

    @property
    def silence_s(self) -> float:
        """Since it last said anything, to whomever."""
        return self._loop.time() - self._heard_at

    async def wait_ready(self) -> None:
        """Raises ApiError where it ends first."""
        try:
            with anyio.fail_after(START_S):
                await self._has_begun.wait()
        except TimeoutError:
            self.give_up(f"was not ready within {START_S:.0f} s")
        if self.ended is not None:
            raise self.failure()

    def open(self, request_id: int) -> Inbox:
        """Raises ApiError where it has ended."""
        if self.ended is not None:
            raise self.failure()
        inbox = self._inboxes[request_id] = Inbox()
        return inbox

    def leave(self, request_id: int) -> None:
        """What still runs under this id is cancelled."""
        inbox = self._inboxes.pop(request_id, None)
        if inbox is not None and not inbox.is_over:
            self._cancel(request_id)

    async def send(self, frame: Request) -> None:
        """Returns when the engine has taken most of it: of many long prompts one waits here at a time."""
        try:
            data = encode_frame(frame)
        except RecursionError:
            raise InvalidRequest("a schema is nested too deeply") from None
        async with self._writing:
            if self.ended is None and self._transport is not None:
                self._transport.write(data)
                await self._may_write.wait()

    def failure(self) -> ApiError:
        """Why it is gone, as the answer to a request. What trying again cannot change says so."""
        if self._is_told_to_end:
            return Overloaded("the engine is being stopped")
        if self._is_other_version:
            return BackendFailed(f"the engine {self.ended}", retry=False)
        if self.ready is not None or self._exit_code is None or self._exit_code < 0:
            return Overloaded(f"the engine {self.ended} and is started again; the request will be tried again")
        words = self._command.last_words(self._mark) or self.ended
        return BackendFailed(f"the engine does not start: {words} (see {self._command.errors_file})", retry=False)

    def give_up(self, why: str) -> None:
        """It is of no more use: killed, and gone for everybody."""
        self._kill()
        self._end(why)

    async def close(self) -> None:
        """Its socket is closed, then it is asked to end, then it is killed. Returns when it is gone, within 5 s."""
        self._is_told_to_end = True
        self._fail_all()
        with anyio.CancelScope(shield=True):
            if self._transport is not None and not self._transport.is_closing():
                self._transport.write_eof()
            for limit_s, then in ((END_S, self._process.terminate), (ASKED_S, self._kill), (KILLED_S, self._kill)):
                with anyio.move_on_after(limit_s):
                    await self._exited.wait()
                    break
                then()
            self._end("was stopped")

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for body in self._reader.feed(data):
                if self.ended is None:
                    self._take(decode_report(body))
        except BadFrame as error:
            self.give_up(f"sent what is not a frame ({str(error)[:_SHOWN]})")

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._end_soon(self._exit_code is not None, "closed its socket")

    def _take(self, report: Report) -> None:
        if isinstance(report, Ready):
            self._greet(report)
        elif self.ready is None:
            self.give_up("spoke before it was ready")
        elif (inbox := self._inboxes.get(report.id)) is not None and not inbox.put(report):
            self._cancel(report.id)

    def _greet(self, ready: Ready) -> None:
        if ready.version != __version__:
            self._is_other_version = True
            self.give_up(f"is version {ready.version}, the gateway {__version__}; run `anyclaude stop` and start again")
            return
        self.ready = ready
        self._has_begun.set()

    def _cancel(self, request_id: int) -> None:
        if self.ended is None and self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode_frame(Cancel(request_id)))

    def _wait(self) -> None:
        """On a thread of its own, which nothing else can tell when a process ends."""
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._exit, code)

    def _exit(self, code: int) -> None:
        self._exit_code = code
        self._exited.set()
        self._end_soon(self._is_lost, "ended")

    def _end_soon(self, has_both: bool, otherwise: str) -> None:
        """The process tells how it ended, the socket what it said last: one waits a little for the other."""
        if has_both:
            self._end(otherwise)
        else:
            self._loop.call_later(_EXIT_S, self._end, otherwise)

    def _end(self, why: str) -> None:
        if self.ended is not None:
            return
        self.ended = how_it_ended(self._exit_code) if self._exit_code is not None else why
        self._kill()
        if self._transport is not None:
            self._transport.abort()
        self._has_begun.set()
        self._may_write.set()
        self._fail_all()
        self._on_end(self)

    def _fail_all(self) -> None:
        inboxes, self._inboxes = self._inboxes, {}
        for inbox in inboxes.values():
            inbox.fail(self.failure())

    def _kill(self) -> None:
        self._process.kill()  # nothing where it has ended


def how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was ended by signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"was ended by signal {-code}"
