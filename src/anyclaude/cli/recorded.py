"""Turns of the ledger, as commands name them: a number, a request id or its beginning, or `last`."""

from collections.abc import Sequence

from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.telemetry.history import History
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow

NOTHING = "no turns are recorded yet; they are, from the first launch on, unless it is --private"


def open_history(folders: Folders) -> History | None:
    """None where nothing was ever recorded."""
    return History(folders.ledger) if folders.ledger.exists() else None


def find_turn(history: History, name: str, line: CommandLine) -> TurnRow:
    """Raises UsageError."""
    if name == "last":
        found = history.turns(newest=1)
        if not found:
            raise UsageError(NOTHING)
        row = found[0]
    elif name.isascii() and name.isdecimal():
        row = history.turn(int(name))
    elif name.startswith("req_"):
        row = history.turn_of_request(name)
    else:
        words = " ".join(part for part in (line.word, line.command, *line.operands) if part)
        raise UsageError(f"{name!r} names no turn: use a number of `anyclaude stats --turns`, a request id or `last`. "
                         f"As a prompt: anyclaude -- {words}")  # fmt: skip
    if row is None:
        raise UsageError(f"there is no turn {name} in the ledger; `anyclaude stats --turns --all` lists them")
    return row


def sections_of_turn(history: History, row: TurnRow) -> Sequence[SectionRow]:
    assert row.id is not None
    return history.sections(row.id)
