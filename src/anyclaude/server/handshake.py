"""How a launcher finds the server: a 0600 file per version, and a lock that the supervisor holds while it lives.

Light on purpose: a launcher that finds a running server imports nothing else of the server.
"""

import fcntl
import os
from pathlib import Path

import msgspec
from msgspec import Struct

from anyclaude import __version__
from anyclaude.paths import write_private
from anyclaude.server.process import is_same_process, process_start


class Address(Struct, frozen=True):
    """A running supervisor. `token` opens the management routes."""

    version: str
    pid: int
    pid_started: float
    port: int
    token: str

    def __repr__(self) -> str:
        return f"Address({self.version}, pid {self.pid}, port {self.port})"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_alive(self) -> bool:
        return is_same_process(self.pid, self.pid_started)


def address_file(runtime: Path, version: str = __version__) -> Path:
    return runtime / f"server-{version}.json"


def read_address(path: Path) -> Address | None:
    """None where no server of that version runs."""
    try:
        address = msgspec.json.decode(path.read_bytes(), type=Address)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
    return address if address.is_alive else None


def announce(runtime: Path, *, port: int, token: str) -> None:
    """From now on this process is the one that launchers find."""
    pid = os.getpid()
    address = Address(__version__, pid, process_start(pid), port, token)
    write_private(address_file(runtime), msgspec.json.encode(address))


def withdraw(runtime: Path) -> None:
    """Takes this process's address back; that of another stays."""
    path = address_file(runtime)
    address = read_address(path)
    if address is not None and address.pid == os.getpid():
        path.unlink(missing_ok=True)


def all_addresses(runtime: Path) -> list[Address]:
    found = (read_address(path) for path in sorted(runtime.glob("server-*.json")))
    return [address for address in found if address is not None]


def is_older(version: str, than: str = __version__) -> bool:
    return _numbers(version) < _numbers(than)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


def take_lock(runtime: Path) -> int | None:
    """The descriptor that holds the lock until the process ends, or None where another supervisor has it."""
    path = runtime / f"server-{__version__}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
