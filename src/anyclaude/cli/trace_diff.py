"""`anyclaude trace diff [A] [B]`: the words in which two recorded prompts differ, section by section."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from anyclaude.backends.kinds import KINDS
from anyclaude.backends.seam import Target
from anyclaude.cli.show import print_json, visible
from anyclaude.cli.traced import find_trace, head_of, recorded_request
from anyclaude.errors import TraceFailed, UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.prompt.sections import Section
from anyclaude.routing.choose import prompt_for, sections_for
from anyclaude.telemetry.trace_files import Summary, Trace, TraceFolder, read_trace, summary_of

_NONE = "/dev/null"  # as git writes it
Pair = tuple[Section | None, Section | None]


class Change(Struct, frozen=True):
    """A section that differs: its place before and after, None where there is none, and the unified diff."""

    before: str | None
    after: str | None
    diff: tuple[str, ...]


def diff(line: CommandLine, folders: Folders) -> int:
    before, after = (read_trace(path) for path in _two(line, folders))
    kind = after.header.backend if after.header.backend in KINDS else "openai"
    old, new = (sections_of_trace(found, kind) for found in (before, after))
    pairs = list(aligned(old, new))
    changes = [_change(*pair) for pair in pairs if pair[0] is None or pair[1] is None or _key(pair[0]) != _key(pair[1])]
    n_equal = len(pairs) - len(changes)
    if "--json" in line.flags:
        ids = [before.header.request_id, after.header.request_id]
        print_json({"traces": ids, "equal": n_equal, "changes": changes})
        return 0
    print(f"{before.header.request_id} (-) and {after.header.request_id} (+): {n_equal} sections are equal,"
          f" {len(changes)} differ")  # fmt: skip
    for change in changes:
        print("\n" + visible("\n".join(change.diff)))
    return 0


def sections_of_trace(found: Trace, kind: str) -> tuple[Section, ...]:
    """The prompt as that kind of server's model reads it."""
    target = Target(kind=kind, base_url=found.header.base_url)
    return sections_for(target, prompt_for(target, recorded_request(found), head_of(found)))


def _two(line: CommandLine, folders: Folders) -> tuple[Path, Path]:
    """With one turn named, or none, it and the one before it in its session."""
    if len(line.operands) == 2:
        first, second = (find_trace(name, folders) for name in line.operands)
        return first, second
    after = find_trace(line.operands[0] if line.operands else "last", folders)
    header = summary_of(after).header
    files = TraceFolder(folders.traces).files()
    for path in reversed(files[: files.index(after)]):
        other = _readable(path)
        if other and (other.header.session, other.header.agent) == (header.session, header.agent):
            return path, after
    raise UsageError(f"{header.request_id} is the first traced turn of its session; name two: anyclaude trace diff A B")


def _readable(path: Path) -> Summary | None:
    try:
        return summary_of(path)
    except TraceFailed:
        return None


def aligned(old: Sequence[Section], new: Sequence[Section]) -> Iterator[Pair]:
    """Each section beside the one that stands for it in the other prompt. Places shift when something comes in between,
    so that equal words are found first; what is left between them is paired in order."""
    matcher = difflib.SequenceMatcher(
        None, [_key(section) for section in old], [_key(section) for section in new], autojunk=False
    )
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        before, after = list(old[old_start:old_end]), list(new[new_start:new_end])
        if tag == "replace":
            yield from _paired(before, after)
        elif tag == "equal":
            yield from zip(before, after, strict=True)
        else:
            yield from ((section, None) for section in before)
            yield from ((None, section) for section in after)


def _paired(before: list[Section], after: list[Section]) -> Iterator[Pair]:
    """By place; what has no partner there stands alone."""
    places = {section.name: section for section in after}
    names = {section.name for section in before}
    for section in before:
        yield section, places.get(section.name)
    yield from ((None, section) for section in after if section.name not in names)


def _key(section: Section) -> tuple[str, str, str]:
    return section.kind, section.role, section.text


def _change(before: Section | None, after: Section | None) -> Change:
    old, new = (section.name if section else None for section in (before, after))
    lines = difflib.unified_diff(
        _lines(before), _lines(after), f"a/{old}" if old else _NONE, f"b/{new}" if new else _NONE, lineterm=""
    )
    return Change(old, new, tuple(lines) or (f"{new}: the same words in another role",))


def _lines(section: Section | None) -> list[str]:
    """A tool's definition on many lines, so that a change in it can be seen; of a picture its digest."""
    if section is None:
        return []
    if section.kind == "image":
        return [f"(a picture, {len(section.text):,} characters of base64, digest {section.row().digest.hex()[:12]})"]
    if section.kind in ("tool", "late_tool"):
        return _indented(section.text).splitlines()
    return section.text.splitlines() or [""]


def _indented(text: str) -> str:
    try:
        return msgspec.json.format(text, indent=2)
    except msgspec.DecodeError:
        return text  # the name of a tool that was never listed
