"""Why a prefix cache could or could not be used: the first section in which two prompts differ.

Works on what the ledger keeps, digests and lengths, so that a turn can be explained long after its text is gone.
"""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from anyclaude.telemetry.sections import SPAN, SectionRow

Change = Literal["changed", "added", "removed"]

_ROOMS = ("tools", "system", "preamble", "messages")


class Difference(Struct, frozen=True):
    """The first section that differs. `name` and `kind` are the later prompt's, or the earlier's where it is removed.

    `from_character` to `to_character` is where in the section the two part, as closely as is known; `n_shared` sections
    and `n_shared_characters` before it are equal. `instead_of` names the earlier section where it is another one.
    """

    change: Change
    kind: str
    name: str
    from_character: int
    to_character: int
    n_shared: int
    n_shared_characters: int
    instead_of: str | None = None


def n_equal(earlier: Sequence[SectionRow], later: Sequence[SectionRow]) -> int:
    """How many sections from the first on are the same."""
    for n, (one, other) in enumerate(zip(earlier, later, strict=False)):
        if one.digest != other.digest:
            return n
    return min(len(earlier), len(later))


def difference(earlier: Sequence[SectionRow], later: Sequence[SectionRow]) -> Difference | None:
    """None where the earlier prompt is a prefix of the later one: then nothing was lost."""
    n = n_equal(earlier, later)
    if n == len(earlier):
        return None
    shared = sum(section.n_characters for section in earlier[:n])
    if n == len(later):
        gone = earlier[n]
        return Difference("removed", gone.kind, gone.name, 0, gone.n_characters, n, shared)
    before, after = earlier[n], later[n]
    change = _change(earlier[n:], later[n:])
    if change == "changed":
        if before.name != after.name:
            return Difference(change, after.kind, after.name, 0, after.n_characters, n, shared, before.name)
        start, end = _where(before, after)
        return Difference(change, after.kind, after.name, start, end, n, shared + start)
    section = after if change == "added" else before
    return Difference(change, section.kind, section.name, 0, section.n_characters, n, shared)


def _change(earlier: Sequence[SectionRow], later: Sequence[SectionRow]) -> Change:
    """Another section stands here, or this one came in between, or went away."""
    if earlier[0].name == later[0].name:
        return "changed"
    digests = {section.digest for section in later}
    if earlier[0].digest in digests:
        return "added"
    if later[0].digest in {section.digest for section in earlier}:
        return "removed"
    before, after = _place(earlier[0]), _place(later[0])
    return "changed" if before == after else "removed" if before < after else "added"


def _place(section: SectionRow) -> tuple[int, int]:
    """The room that a section stands in, and which system text or message it is."""
    room, _, rest = section.name.partition(".")
    number = rest.partition(".")[0]
    return _ROOMS.index(room), int(number) if room != "tools" else 0


def _where(before: SectionRow, after: SectionRow) -> tuple[int, int]:
    """Between which characters the two texts part."""
    shortest = min(before.n_characters, after.n_characters)
    n = 0
    while 4 * (n + 1) <= min(len(before.marks), len(after.marks)):
        if before.marks[4 * n : 4 * n + 4] != after.marks[4 * n : 4 * n + 4]:
            break
        n += 1
    return min(n * SPAN, shortest), min((n + 1) * SPAN, max(before.n_characters, after.n_characters))
