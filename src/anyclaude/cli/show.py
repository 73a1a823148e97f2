"""Shapes of output that several commands share: JSON for programs, aligned columns for people."""

import sys
from collections.abc import Sequence
from typing import Any

import msgspec


def say(*lines: str) -> None:
    """For the person, on standard error: standard output belongs to programs and to the client."""
    for line in lines:
        print(f"anyclaude: {line}", file=sys.stderr)


def print_json(value: Any) -> None:
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), flush=True)


def print_columns(rows: Sequence[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """The first row is the heading. Columns in `right` are aligned to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            text.rjust(width) if n in right else text.ljust(width)
            for n, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
