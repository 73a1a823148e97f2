"""A terminal with a person at it: a program on a real pty, and pyte keeps the screen that the person would see."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyte

LIMIT_S = 60.0
_READ_BYTES = 1 << 16
# What login does: the slave becomes the controlling terminal, so that Ctrl-C is a signal and closing it a hang-up.
_BECOME = "import fcntl,os,sys,termios; fcntl.ioctl(0,termios.TIOCSCTTY,0); os.execvp(sys.argv[1],sys.argv[1:])"


class Terminal:
    """Use as a context: the program is there inside and gone after. Sizes in characters."""

    def __init__(
        self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str], rows: int = 40, columns: int = 110
    ) -> None:
        self._screen = _Screen(columns, rows, self._send)
        self._stream = pyte.ByteStream(self._screen)
        self._changed = threading.Condition()
        self._is_closed = False
        self._master, slave = pty.openpty()
        self._set_size(rows, columns)
        with os.fdopen(slave, "rb") as stdio:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _BECOME, *command],
                stdin=stdio,
                stdout=stdio,
                stderr=stdio,
                cwd=cwd,
                env={**environment, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        os.close(self._master)

    @property
    def text(self) -> str:
        with self._changed:
            return self._screen.text

    def type(self, keys: str) -> None:
        self._send(keys)

    def press_until(self, keys: str, text: str) -> str:
        """Again and again until the text is there: a dialog ignores keys in its first moments, lest one be answered
        by accident."""
        with self._changed:
            for _ in range(int(LIMIT_S)):
                self._send(keys)
                if self._changed.wait_for(lambda: text in self._screen.text, 1.0):
                    break
        return self.wait_for(text)

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the program by SIGWINCH."""
        with self._changed:
            self._screen.resize(rows, columns)
        self._set_size(rows, columns)

    def wait_for(self, text: str) -> str:
        """The screen as soon as it shows the text."""
        return self.wait_until(lambda screen: text in screen, what=repr(text))

    def wait_until(self, holds: Callable[[str], bool], *, what: str) -> str:
        """Looks again at every change of the screen, not by the clock."""
        with self._changed:
            came = self._changed.wait_for(lambda: holds(self._screen.text) or self._is_closed, LIMIT_S)
            shown = self._screen.text
        assert came, f"{what} did not come within {LIMIT_S:.0f} s; the screen:\n{shown}"
        assert holds(shown), f"the program ended before {what} came; the screen:\n{shown}"
        return shown

    def hang_up(self) -> None:
        """What closing the window does to the program in it."""
        os.killpg(self.process.pid, signal.SIGHUP)

    def wait_for_end(self) -> int:
        """The exit status."""
        return self.process.wait(LIMIT_S)

    def _send(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        while data := self._read_some():
            with self._changed:
                self._stream.feed(data)
                self._changed.notify_all()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _read_some(self) -> bytes:
        try:
            return os.read(self._master, _READ_BYTES)
        except OSError:  # Linux ends a pty so, macOS with an empty read
            return b""


class _Screen(pyte.Screen):
    """pyte's screen, which answers the program's questions."""

    def __init__(self, columns: int, rows: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, rows)
        self._answer = answer

    @property
    def text(self) -> str:
        """A space is a space, whether a line may break there or not."""
        return "\n".join(line.replace("\xa0", " ").rstrip() for line in self.display)

    def write_process_input(self, data: str) -> None:
        self._answer(data)

    def select_graphic_rendition(self, *attrs: int, **kwargs: Any) -> None:
        """xterm's `CSI > m` sets how keys are sent, not how text looks; pyte takes it for colours."""
        if not kwargs:
            super().select_graphic_rendition(*attrs)
