"""A store's folder: ours, 0700, written by the one process that holds its lock. What is in it besides the index: block
files, temporary files of a write that was cut short, and a few files that were set aside."""

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from anyclaude.engine.cache.block_file import SUFFIX, Damaged, file_name, read_head
from anyclaude.engine.cache.index import File
from anyclaude.errors import UnsafeFolder
from anyclaude.paths import private_folder, write_private

ASIDE = "damaged"
MAX_ASIDE = 8
_NAME = re.compile(r"[0-9a-f]{64}" + re.escape(SUFFIX))
_TEMPORARY = re.compile(r"\.[0-9a-f]{64}\.tmp|\.pins\.json\.[0-9a-f]+\.tmp")
log = logging.getLogger(__name__)


class BlockFolder:
    """Raises UnsafeFolder where it cannot be made or is not only ours."""

    def __init__(self, path: Path) -> None:
        self.path = private_folder(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._lock: int | None = None

    def lock(self) -> bool:
        """Whether this process is the one that writes. Raises OSError where nobody can."""
        if self._lock is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open("lock", flags, 0o600, dir_fd=self.descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            except OSError:  # some network file systems cannot: files under their digest's name bear two writers
                pass
            try:
                self._try_to_write()
            except OSError:
                os.close(descriptor)
                raise
            self._lock = descriptor
        return True

    def _try_to_write(self) -> None:
        """The lock's file may be writable in a folder that is not."""
        name = f".{secrets.token_hex(32)}.tmp"
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self.descriptor))
        os.unlink(name, dir_fd=self.descriptor)

    def sizes(self) -> dict[bytes, int]:
        """Of all block files."""
        found: dict[bytes, int] = {}
        with os.scandir(self.descriptor) as entries:
            for entry in entries:
                if _NAME.fullmatch(entry.name):
                    name = bytes.fromhex(entry.name.removesuffix(SUFFIX))
                    with suppress(OSError):
                        found[name] = entry.stat(follow_symlinks=False).st_size
        return found

    def clean(self) -> None:
        """Away with what a write that was cut short has left."""
        for path in self.path.iterdir():
            if _TEMPORARY.fullmatch(path.name):
                with suppress(OSError):
                    path.unlink()

    def heads(self, names: set[bytes]) -> Iterator[tuple[bytes, File | Damaged]]:
        """What these files say that they are. One that is gone is left out."""
        for name in names:
            try:
                head, size = read_head(self.descriptor, name)
            except Damaged as damage:
                yield name, damage
            except OSError as error:
                log.warning("%s cannot be read: %s", file_name(name), error.strerror)
            else:
                yield name, File(head.entry, size, head.model)

    def modified_at(self, name: bytes) -> float:
        try:
            return os.stat(file_name(name), dir_fd=self.descriptor, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    def remove(self, name: bytes) -> None:
        with suppress(OSError):
            os.unlink(file_name(name), dir_fd=self.descriptor)

    def set_aside(self, name: bytes, why: str) -> None:
        """Kept for whoever wants to look at it: the last few."""
        log.warning("%s is set aside: %s", file_name(name), why)
        aside = self.path / ASIDE
        try:
            private_folder(aside)
            (self.path / file_name(name)).rename(aside / file_name(name))
            kept = sorted(aside.iterdir(), key=lambda path: path.lstat().st_ctime_ns)
            for path in kept[:-MAX_ASIDE]:
                path.unlink()
        except (OSError, UnsafeFolder):
            self.remove(name)

    def clear(self) -> int:
        """Every file of the store's but its index; how many blocks."""
        sizes = self.sizes()
        for name in sizes:
            self.remove(name)
        self.clean()
        for path in (self.path / ASIDE).glob("*"):
            with suppress(OSError):
                path.unlink()
        return len(sizes)

    def free_bytes(self) -> int:
        found = os.statvfs(self.descriptor)
        return found.f_bavail * found.f_frsize

    def read_pins(self) -> frozenset[bytes]:
        """Empty where the file is missing or makes no sense."""
        try:
            names = msgspec.json.decode((self.path / "pins.json").read_bytes(), type=list[str])
            return frozenset(map(bytes.fromhex, names))
        except (OSError, ValueError):
            return frozenset()

    def write_pins(self, names: frozenset[bytes]) -> None:
        """Raises OSError."""
        write_private(self.path / "pins.json", msgspec.json.encode(sorted(name.hex() for name in names)))

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        os.close(self.descriptor)
