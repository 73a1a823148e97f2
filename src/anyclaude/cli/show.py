"""Shapes of output that several commands share: JSON for programs, aligned columns for people."""

import datetime
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

# What a terminal obeys instead of showing it: control characters but the end of a line and the tabulator.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def say(*lines: str) -> None:
    """For the person, on standard error: standard output belongs to programs and to the client."""
    for line in lines:
        print(f"anyclaude: {line}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


def visible(text: str) -> str:
    """Words of a model, a file or a server, with nothing left in them that would command the terminal."""
    return text.translate(_CONTROLS)


def print_columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """The first row is the heading. Columns in `right` are aligned to the right."""
    rows = [[visible(text) for text in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(width) if n in right else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def print_json_line(value: Any) -> None:
    print(msgspec.json.encode(value).decode())


def or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def counted(number: int, noun: str) -> str:
    """ "1 turn", "2 turns"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def clock(started_at: float) -> str:
    """Local time, with the date where it is not today's."""
    moment = datetime.datetime.fromtimestamp(started_at).astimezone()
    is_today = moment.date() == datetime.datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def length_of_time(value: float) -> str:
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"
