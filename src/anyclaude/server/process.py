"""Processes by pid and start time: a pid alone may already belong to somebody else."""

import psutil

_TOLERANCE_S = 1.0


def process_start(pid: int) -> float:
    """Seconds since 1970, as the system tells it."""
    return psutil.Process(pid).create_time()


def is_same_process(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started) < _TOLERANCE_S
    except psutil.NoSuchProcess:
        return False
