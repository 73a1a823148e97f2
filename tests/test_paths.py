import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest

from anyclaude.errors import UnsafeFolder
from anyclaude.paths import Folders, private_folder, user_folders, write_private


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a" / "b")

    assert folder == tmp_path / "a" / "b"
    assert mode_of(folder) == 0o700


def test_a_folder_that_is_ours_already_is_fine(tmp_path: Path) -> None:
    private_folder(tmp_path / "a")
    (tmp_path / "a" / "file").touch()

    assert private_folder(tmp_path / "a") == tmp_path / "a"
    assert names_in(tmp_path / "a") == ["file"]


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o770, 0o701, 0o777, 0o720])
def test_a_folder_that_others_may_enter_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(UnsafeFolder, match=f"open to others \\(mode {mode:o}\\); run: chmod 700"):
        private_folder(folder)
    assert mode_of(folder) == mode


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    private_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with pytest.raises(UnsafeFolder, match="is a link or a file"):
        private_folder(tmp_path / "link")


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "none")

    with pytest.raises(UnsafeFolder, match="is a link or a file"):
        private_folder(tmp_path / "link")
    assert names_in(tmp_path) == ["link"]


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").touch(mode=0o600)

    with pytest.raises(UnsafeFolder, match="is a link or a file"):
        private_folder(tmp_path / "a")


def test_a_file_in_the_way_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    (tmp_path / "a").touch()

    with pytest.raises(UnsafeFolder, match="cannot create"):
        private_folder(tmp_path / "a" / "b")
    with pytest.raises(UnsafeFolder, match="cannot create"):
        private_folder(tmp_path / "a" / "b" / "c")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "a")
    os.chown(folder, 12345, -1)

    with pytest.raises(UnsafeFolder, match="belongs to user 12345"):
        private_folder(folder)


# Files


def test_a_file_is_written_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    write_private(tmp_path / "token", b"secret")

    assert (tmp_path / "token").read_bytes() == b"secret"
    assert mode_of(tmp_path / "token") == 0o600
    assert names_in(tmp_path) == ["token"]


def test_a_file_that_was_open_to_others_is_replaced_by_a_private_one(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"old")
    (tmp_path / "token").chmod(0o644)

    write_private(tmp_path / "token", b"new")

    assert (tmp_path / "token").read_bytes() == b"new"
    assert mode_of(tmp_path / "token") == 0o600


def test_a_generous_umask_changes_nothing(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "token", b"secret")
        private_folder(tmp_path / "a")
    finally:
        os.umask(before)

    assert mode_of(tmp_path / "token") == 0o600
    assert mode_of(tmp_path / "a") == 0o700


def test_a_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"theirs")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")

    write_private(tmp_path / "token", b"secret")

    assert (tmp_path / "elsewhere").read_bytes() == b"theirs"
    assert not (tmp_path / "token").is_symlink()


def test_what_a_crashed_writer_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".token.{os.getpid()}.tmp").write_bytes(b"half")

    write_private(tmp_path / "token", b"secret")
    assert (tmp_path / "token").read_bytes() == b"secret"


def test_a_disk_that_refuses_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the write really fails, after its first bytes."""
    write_private(tmp_path / "token", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_private(tmp_path / "token", b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert (tmp_path / "token").read_bytes() == b"old"
    assert names_in(tmp_path) == ["token"]


def test_a_file_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()

    with pytest.raises(IsADirectoryError):
        write_private(tmp_path / "token", b"secret")
    assert names_in(tmp_path) == ["token"]


def test_data_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    text: Any = "text instead of bytes"

    with pytest.raises(TypeError):
        write_private(tmp_path / "token", text)
    assert names_in(tmp_path) == []


# Where they are


def test_xdg_variables_move_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONFIG", "STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))

    folders = user_folders(str(tmp_path / "run"))

    if os.uname().sysname == "Linux":  # elsewhere platformdirs keeps to the system's own places
        assert (folders.config, folders.state, folders.cache) == (
            tmp_path / "config" / "anyclaude",
            tmp_path / "state" / "anyclaude",
            tmp_path / "cache" / "anyclaude",
        )
    assert folders.runtime == tmp_path / "run" / "anyclaude"


def test_without_a_runtime_folder_it_is_in_the_temporary_folder_under_our_number() -> None:
    assert user_folders(None).runtime.name == f"anyclaude-{os.getuid()}"
    assert user_folders("").runtime == user_folders(None).runtime


def test_all_folders_are_made_private(tmp_path: Path) -> None:
    folders = Folders(*(tmp_path / name / "anyclaude" for name in ("config", "state", "cache", "runtime")))

    assert folders.make() == folders
    for folder in (folders.config, folders.state, folders.cache, folders.runtime):
        assert mode_of(folder) == 0o700


def test_one_unsafe_folder_is_enough_to_refuse(tmp_path: Path) -> None:
    folders = Folders(*(tmp_path / name for name in ("config", "state", "cache", "runtime")))
    folders.cache.mkdir()
    folders.cache.chmod(0o755)

    with pytest.raises(UnsafeFolder, match="cache"):
        folders.make()


def test_every_file_of_ours_lies_in_a_folder_of_ours() -> None:
    folders = Folders(Path("/c"), Path("/s"), Path("/k"), Path("/r"))

    assert folders.settings_file == Path("/c/config.toml")
    assert folders.log_file.parent == folders.state
    assert folders.sessions.parent == folders.overlays.parent == folders.runtime
    assert folders.sessions != folders.overlays
