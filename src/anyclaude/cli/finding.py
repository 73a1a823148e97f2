"""One thing that `anyclaude doctor` found."""

from typing import Literal

from msgspec import Struct

Level = Literal["ok", "note", "problem"]


class Finding(Struct, frozen=True):
    """`what` is the fact; `do` is the remedy, empty where none is needed."""

    level: Level
    topic: str
    what: str
    do: str = ""
