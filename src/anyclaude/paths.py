"""Our folders, as XDG and platformdirs place them. Each is 0700 and ours, or it is refused.

XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR move them, so that two people, or two
tests, never meet.
"""

import os
import secrets
import stat
import tempfile
from pathlib import Path

from msgspec import Struct
from platformdirs import PlatformDirs

from anyclaude.errors import UnsafeFolder


class Folders(Struct, frozen=True):
    config: Path
    state: Path
    cache: Path
    runtime: Path

    def make(self) -> "Folders":
        """Creates what is missing. Raises UnsafeFolder. Without a cache folder everything works, only slower after a
        restart: whoever uses it checks it, and does without."""
        for folder in (self.config, self.state, self.runtime):
            private_folder(folder)
        make_if_possible(self.cache)
        return self

    @property
    def log_file(self) -> Path:
        return self.state / "server.log"

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.sqlite3"

    @property
    def traces(self) -> Path:
        return self.state / "traces"

    @property
    def settings_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def sessions(self) -> Path:
        return self.runtime / "sessions"

    @property
    def overlays(self) -> Path:
        return self.runtime / "overlays"


def user_folders(runtime_dir: str | None) -> Folders:
    """`runtime_dir` is XDG_RUNTIME_DIR. Without it the runtime folder is in the temporary folder, under a name that
    others can predict: `private_folder` refuses it if somebody else made it."""
    dirs = PlatformDirs("anyclaude", appauthor=False)
    root = Path(runtime_dir) if runtime_dir else Path(tempfile.gettempdir()) / f"anyclaude-{os.getuid()}"
    return Folders(
        config=dirs.user_config_path,
        state=dirs.user_state_path,
        cache=dirs.user_cache_path,
        runtime=root / "anyclaude" if runtime_dir else root,
    )


def private_folder(folder: Path) -> Path:
    """Creates the folder with 0700, or checks that it is a real folder, ours, and closed to others."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnsafeFolder(f"cannot create {folder.parent}: {error.strerror}") from error
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise UnsafeFolder(f"cannot create {folder}: {error.strerror} (XDG_* variables move it)") from error
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeFolder(f"{folder} is a link or a file: a folder of our own is needed there (XDG_* can move it)")
    if found.st_uid != os.getuid():
        raise UnsafeFolder(f"{folder} belongs to user {found.st_uid}, not to you; remove it or set XDG_* elsewhere")
    if found.st_mode & 0o077:
        raise UnsafeFolder(f"{folder} is open to others (mode {found.st_mode & 0o777:o}); run: chmod 700 '{folder}'")
    return folder


def make_if_possible(folder: Path) -> bool:
    """Whether the private folder is there; False where it cannot be created. Raises UnsafeFolder for one that is there
    and is not only ours."""
    try:
        private_folder(folder)
    except UnsafeFolder:
        if os.path.lexists(folder):
            raise
        return False
    return True


def _sync(folder: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, data: bytes) -> None:
    """A whole file with 0600 or no file: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
