"""Processes by pid and start time: a pid alone may already belong to somebody else.

On Linux the start is read from /proc (proc(5), `stat`, field 22), in seconds since the system started: reckoned as a
time of day it would change when the clock is set, and a session whose client is still there would seem dead.
"""

import os
import sys
from pathlib import Path

import psutil

_TOLERANCE_S = 0.05


def process_start(pid: int) -> float:
    """Seconds, from a beginning that stays the same while the system runs. Raises psutil.NoSuchProcess."""
    if sys.platform != "linux":
        return psutil.Process(pid).create_time()
    return int(_stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


def is_same_process(pid: int, started: float) -> bool:
    """Whether it still runs; one that has ended and was not waited for does not."""
    try:
        return abs(process_start(pid) - started) < _TOLERANCE_S and not _has_ended(pid)
    except psutil.NoSuchProcess:
        return False


def _has_ended(pid: int) -> bool:
    if sys.platform != "linux":
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return _stat(pid)[0] in ("Z", "X")


def _stat(pid: int) -> list[str]:
    """The fields after the command, whose name may hold blanks and brackets: the first is the state."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    return text.rpartition(")")[2].split()
