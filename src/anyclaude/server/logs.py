"""The server's log: one file, rotated, 0600. It tells what happened, never what was said."""

import logging
import os
from collections.abc import Iterable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from anyclaude.config.table import LOG_LEVELS

_MAX_BYTES = 5_000_000
_N_KEPT = 3
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class PrivateRotatingFile(RotatingFileHandler):
    """A rotated file that nobody else can read."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8")


def log_to(file: Path, level: str) -> None:
    handler = PrivateRotatingFile(str(file), maxBytes=_MAX_BYTES, backupCount=_N_KEPT, encoding="utf-8")
    _install(handler, level)


def log_to_terminal(level: str) -> None:
    _install(logging.StreamHandler(), level)


def set_level(levels: Iterable[str]) -> None:
    """The most talkative of the levels that running sessions asked for."""
    most = max(levels, key=LOG_LEVELS.index, default="info")
    logging.getLogger("anyclaude").setLevel(most.upper())


def _install(handler: logging.Handler, level: str) -> None:
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    set_level([level])
