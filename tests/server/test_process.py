"""A process is known by pid and start time."""

import os
import subprocess
import sys

import psutil
import pytest

from anyclaude.server.process import is_same_process, process_start


def test_a_running_process_is_itself_and_no_other() -> None:
    started = process_start(os.getpid())
    assert is_same_process(os.getpid(), started)
    assert not is_same_process(os.getpid(), started - 5)


def test_a_process_that_became_another_program_is_still_the_same() -> None:
    program = "import os; print(1, flush=True); os.read(0, 7); os.execvp('cat', ['cat'])"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    started = process_start(process.pid)
    process.stdin.write("become\n")
    process.stdin.write("echo\n")
    assert process.stdout.readline() == "echo\n"  # it is cat now
    assert is_same_process(process.pid, started)
    process.communicate(timeout=60)


def test_a_process_that_ended_is_not_running_even_while_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = process_start(process.pid)
    assert is_same_process(process.pid, started)
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_same_process(process.pid, started)
    process.wait(60)
    assert not is_same_process(process.pid, started)
    with pytest.raises(psutil.NoSuchProcess):
        process_start(process.pid)
