"""`anyclaude logs [-f]`: the gateway's log, as it grows and across its rotation."""

import os
import time
from pathlib import Path

from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders

_TAIL_BYTES = 64 << 10
_LOOK_S = 0.25


def logs(line: CommandLine, folders: Folders) -> int:
    file = folders.log_file
    follows = bool(line.flags & {"-f", "--follow"})
    if not file.exists() and not follows:
        print(f"no log yet ({file}); the gateway writes it when it runs")
        return 0
    position = _print_from(file, max(0, _size(file) - _TAIL_BYTES), whole_lines=True)
    inode = _inode(file)
    while follows:
        time.sleep(_LOOK_S)
        if _inode(file) != inode:  # rotated: a new file begins
            inode, position = _inode(file), 0
        position = _print_from(file, position)
    return 0


def _print_from(file: Path, position: int, *, whole_lines: bool = False) -> int:
    """Prints what stands after `position` and returns the new end."""
    try:
        with file.open("rb") as log:
            log.seek(position)
            if whole_lines and position:
                log.readline()
            data = log.read()
            end = log.tell()
    except FileNotFoundError:
        return position
    print(data.decode("utf-8", "replace"), end="", flush=True)
    return end


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _inode(file: Path) -> int | None:
    try:
        return os.stat(file).st_ino  # noqa: PTH116
    except FileNotFoundError:
        return None
