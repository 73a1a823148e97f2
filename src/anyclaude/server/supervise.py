"""The supervisor: holds port and socket, runs the server, and starts it again when it dies.

    python -m anyclaude.server.supervise RUNTIME STATE PORT IDLE_STOP_S READY_DESCRIPTOR

Port and socket survive a crash of the server, so a running client's next try is answered. Exit status 0 of the server
means that it was told to stop or had been quiet; then the supervisor goes too. It tells the launcher on the ready
descriptor what became of the start, in one line of JSON, and leaves the terminal's session for good.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import msgspec
from msgspec import Struct

from anyclaude.paths import write_private
from anyclaude.server.handshake import announce, take_lock, withdraw

_BACKLOG = 512
_STEADY_S = 30.0
_LONGEST_PAUSE_S = 5.0


class Ready(Struct, frozen=True):
    """`port` where it listens; `problem` where it does not; neither where another supervisor was quicker."""

    port: int | None = None
    problem: str | None = None


class Supervisor:
    def __init__(self, runtime: Path, state: Path, idle_stop_s: float) -> None:
        self._runtime = runtime
        self._state = state
        self._idle_stop_s = idle_stop_s
        self._token = secrets.token_urlsafe(32)
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopping = False

    def announce(self, port: int) -> None:
        announce(self._runtime, port=port, token=self._token)
        write_private(last_port_file(self._runtime), str(port).encode())

    def run(self, sock: socket.socket) -> None:
        """Until the server ends on purpose or a signal says so."""
        pause_s = 0.05
        while not self._is_stopping:
            started = time.monotonic()
            if self._run_once(sock) == 0:
                return
            pause_s = 0.05 if time.monotonic() - started > _STEADY_S else min(pause_s * 2, _LONGEST_PAUSE_S)
            time.sleep(pause_s)

    def _run_once(self, sock: socket.socket) -> int:
        command = [
            sys.executable, "-m", "anyclaude.server.run",
            str(sock.fileno()), str(self._runtime), str(self._state), str(self._idle_stop_s),
        ]  # fmt: skip
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[sock.fileno()])  # noqa: S603
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._child.stdin as pipe:
            pipe.write(f"{self._token}\n".encode())
        return self._child.wait()

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_stopping = True
        if self._child is not None:
            self._child.terminate()


def last_port_file(runtime: Path) -> Path:
    """Beside the sessions: whoever finds these finds the port that their clients know."""
    return runtime / "last-port"


def listen(port: int, last_port: int | None) -> socket.socket:
    """The wanted port, or raises OSError. For any port the last one again if it is free: clients that are still running
    know it."""
    for candidate in [port] if port else [last_port or 0, 0]:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", candidate))
        except OSError:
            sock.close()
            if candidate == port:
                raise
            continue
        sock.listen(_BACKLOG)
        return sock
    raise OSError("no free port")


def _last_port(runtime: Path) -> int | None:
    try:
        return int(last_port_file(runtime).read_text())
    except (FileNotFoundError, ValueError):
        return None


def main(arguments: list[str]) -> None:
    runtime, state = Path(arguments[0]), Path(arguments[1])
    port, idle_stop_s, ready = int(arguments[2]), float(arguments[3]), int(arguments[4])
    lock = take_lock(runtime)
    if lock is None:
        _tell(ready, Ready())
        return
    try:
        sock = listen(port, _last_port(runtime))
    except OSError as error:
        _tell(ready, Ready(problem=f"port {port}: {error.strerror}"))
        return
    supervisor = Supervisor(runtime, state, idle_stop_s)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.announce(sock.getsockname()[1])
    _tell(ready, Ready(port=sock.getsockname()[1]))
    try:
        supervisor.run(sock)
    finally:
        withdraw(runtime)


def _tell(descriptor: int, ready: Ready) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, msgspec.json.encode(ready) + b"\n")
    os.close(descriptor)


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # the launcher becomes the client, which should not find itself with a strange child
    main(sys.argv[1:])
