"""`anyclaude models pull NAME`: how far a download is, in place on a terminal, in lines elsewhere."""

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TextIO

from anyclaude.cli.show import print_json, say
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.download import pull
from anyclaude.launch.local_model import hub_folder
from anyclaude.launch.model_store import PREFIX

_SHOWN_EVERY_S = 0.2
_LINE_EVERY = 0.1  # of the whole


class Shown:
    """Progress for a person. `clock` counts seconds."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._lock = threading.Lock()
        self._total = self._done = 0
        self._started = self._shown_at = time.monotonic()
        self._shown_share = 0.0
        self._first = 0

    def begin(self, total_bytes: int) -> None:
        self._total = total_bytes
        if total_bytes:
            self._out.write(f"anyclaude: {total_bytes / 1e9:.2f} GB to download; Ctrl-C breaks it off\n")

    def add(self, n_bytes: int) -> None:
        with self._lock:
            if not self._done:  # what an earlier try has brought, or the first piece
                self._first = n_bytes
            self._done += n_bytes
            self._show()

    def end(self) -> None:
        if self._is_terminal and self._done:
            self._out.write("\n")

    def _show(self) -> None:
        now, share = time.monotonic(), self._done / self._total if self._total else 1.0
        is_due = (
            now - self._shown_at >= _SHOWN_EVERY_S if self._is_terminal else share - self._shown_share >= _LINE_EVERY
        )
        if not is_due:
            return
        self._shown_at, self._shown_share = now, share
        rate = (self._done - self._first) / max(now - self._started, 1e-3)
        line = f"{self._done / 1e9:.2f} of {self._total / 1e9:.2f} GB ({share:.0%}), {rate / 1e6:.0f} MB/s"
        self._out.write(f"\r\x1b[K{line}" if self._is_terminal else f"anyclaude: {line}\n")
        self._out.flush()


def pull_model(line: CommandLine, environ: Mapping[str, str]) -> int:
    name = line.operands[0].removeprefix(PREFIX)
    shown = Shown(sys.stderr)
    before = signal.signal(signal.SIGINT, _break_off)
    try:
        pulled = pull(name, hub_folder(environ), shown)
    finally:
        signal.signal(signal.SIGINT, before)
        shown.end()
    if "--json" in line.flags:
        print_json({"model": name, "folder": str(pulled.folder), "downloaded_bytes": pulled.n_bytes})
    else:
        print(f"{name} is here{'' if pulled.n_bytes else ' already'}: {pulled.folder}")
        print(f"to use it: anyclaude --model {PREFIX}{name}")
    return 0


def _break_off(*_: object) -> None:
    """At once: the library's threads would otherwise be waited for to the end of their files."""
    sys.stderr.write("\n")
    say("broken off; what came is kept, and the same command goes on where this one stopped")
    sys.stderr.flush()
    os._exit(130)
