"""`anyclaude prompt show|diff`: a recorded turn's prompt in sections: places, lengths, digests, no words."""

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from anyclaude.backends.estimate import Calibration, amounts_of
from anyclaude.cli.recorded import NOTHING, find_turn, open_history, sections_of_turn
from anyclaude.cli.show import clock, counted, or_dash, print_columns, print_json
from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.telemetry.history import History
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow


class Line(Struct, frozen=True):
    """One section. `tokens` is an estimate: the prompt's measured tokens, shared out by what each kind costs."""

    name: str
    kind: str
    characters: int
    tokens: int
    digest: str
    change: str = " "


def prompt(line: CommandLine, folders: Folders) -> int:
    history = open_history(folders)
    if history is None:
        print_json(None) if "--json" in line.flags else print(NOTHING)
        return 0
    with history:
        return _show(line, history) if line.command == "show" else _diff(line, history)


def _show(line: CommandLine, history: History) -> int:
    turn = find_turn(history, line.operands[0] if line.operands else "last", line)
    lines = _lines_of(history, turn)
    if "--json" in line.flags:
        print_json(
            {"turn": turn.id, "tokens_prompt": turn.tokens_prompt, "sections": [_fields(each) for each in lines]}
        )
        return 0
    size = f"{counted(len(lines), 'section')}, {turn.n_characters:,} characters, {or_dash(turn.tokens_prompt)} tokens"
    print(f"turn {turn.id}, {clock(turn.started_at)}, {turn.model}: {size}")
    _print(lines)
    return 0


def _diff(line: CommandLine, history: History) -> int:
    before, after = _two_turns(line, history)
    old, new = _lines_of(history, before), _lines_of(history, after)
    lines = list(_compared(old, new))
    if "--json" in line.flags:
        changed = [_fields(each) | {"change": each.change} for each in lines if each.change != " "]
        equal = sum(each.change == " " for each in lines)
        print_json({"turns": [before.id, after.id], "equal": equal, "changed": changed})
        return 0
    print(f"turn {before.id} (-) and turn {after.id} (+)")
    n_equal = next((n for n, each in enumerate(lines) if each.change != " "), len(lines))
    n_characters = sum(each.characters for each in lines[:n_equal])
    print(f"{counted(n_equal, 'section')} from the first on equal ({n_characters:,} characters)")
    if n_equal < len(lines):
        _print(lines[n_equal:])
    return 0


def _two_turns(line: CommandLine, history: History) -> tuple[TurnRow, TurnRow]:
    """With one turn named, it and the one that the ledger compared it with."""
    if len(line.operands) == 2:
        first, second = (find_turn(history, name, line) for name in line.operands)
        return first, second
    after = find_turn(history, line.operands[0] if line.operands else "last", line)
    before = history.turn(after.compared_with) if after.compared_with is not None else None
    if before is None:
        raise UsageError(f"turn {after.id} has no earlier turn to compare with; name two: anyclaude prompt diff A B")
    return before, after


def _lines_of(history: History, turn: TurnRow) -> list[Line]:
    sections = sections_of_turn(history, turn)
    saved = history.calibration(turn)
    calibration = Calibration.read(saved) if saved else Calibration.fresh()
    costs = [_cost(calibration, section) for section in sections]
    scale = turn.tokens_prompt / sum(costs) if turn.tokens_prompt and sum(costs) else 1.0
    return [
        Line(section.name, section.kind, section.n_characters, round(cost * scale), section.digest.hex())
        for section, cost in zip(sections, costs, strict=True)
    ]


def _cost(calibration: Calibration, section: SectionRow) -> float:
    return calibration.tokens(amounts_of([section]))


def _compared(old: Sequence[Line], new: Sequence[Line]) -> Iterator[Line]:
    matcher = difflib.SequenceMatcher(
        None, [each.digest for each in old], [each.digest for each in new], autojunk=False
    )
    for tag, old_start, old_end, new_start, new_end in matcher.get_opcodes():
        if tag == "equal":
            yield from new[new_start:new_end]
            continue
        for sign, part in (("-", old[old_start:old_end]), ("+", new[new_start:new_end])):
            for each in part:
                yield Line(each.name, each.kind, each.characters, each.tokens, each.digest, sign)


def _fields(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "kind": line.kind,
        "characters": line.characters,
        "tokens_estimated": line.tokens,
        "digest": line.digest,
    }


def _print(lines: Sequence[Line]) -> None:
    rows = [("", "section", "kind", "characters", "~tokens", "digest")]
    rows += [
        (each.change, each.name, each.kind, f"{each.characters:,}", f"{each.tokens:,}", each.digest[:12])
        for each in lines
    ]
    print_columns(rows, right=frozenset({3, 4}))
