"""`anyclaude cache why [TURN]`: what changed in the prompt, and what that cost."""

from collections.abc import Iterator
from typing import Any

from anyclaude.cli.recorded import NOTHING, find_turn, open_history, sections_of_turn
from anyclaude.cli.show import clock, counted, print_json, visible
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.prompt.explain import Difference
from anyclaude.prompt.why import Why, explain
from anyclaude.telemetry.history import History
from anyclaude.telemetry.turns import TurnRow

_VERBS = {"changed": "changed", "added": "is new there", "removed": "is gone"}


def why(line: CommandLine, folders: Folders) -> int:
    history = open_history(folders)
    if history is None:
        print_json(None) if "--json" in line.flags else print(NOTHING)
        return 0
    with history:
        found = explained(history, find_turn(history, line.operands[0] if line.operands else "last", line))
    if "--json" in line.flags:
        print_json(_fields(found))
    else:
        for text in _lines(found):
            print(visible(text))
    return 0


def explained(history: History, turn: TurnRow) -> Why:
    before = history.turn_before(turn)
    earlier = _earlier(history, turn, before)
    return explain(
        turn,
        sections_of_turn(history, turn),
        earlier,
        sections_of_turn(history, earlier) if earlier else [],
        before=before,
        after_compaction=earlier is not None and history.has_compaction(turn, since=earlier),
    )


def _earlier(history: History, turn: TurnRow, before: TurnRow | None) -> TurnRow | None:
    """What the ledger compared it with. Where no turn begins like it, the newest of its kind: a change may stand in the
    very first section, too."""
    if turn.compared_with is not None:
        return history.turn(turn.compared_with)
    return None if before is not None and before.server != turn.server else history.turn_alike(turn)


def _fields(found: Why) -> dict[str, Any]:
    turn = found.turn
    return {
        "turn": turn.id,
        "session": turn.session,
        "agent": turn.agent,
        "model": turn.model,
        "verdict": found.verdict,
        "compared_with": found.compared_with,
        "scope": found.scope,
        "section": found.difference,
        "sections": turn.n_sections,
        "sections_new": found.n_new,
        "tokens_prompt": turn.tokens_prompt,
        "tokens_cached": turn.tokens_cached,
        "tokens_could_be_cached": found.tokens_could,
        "tokens_lost": found.tokens_lost,
        "is_estimate": found.is_estimate,
        "after_compaction": found.after_compaction,
        "ran_beside": found.ran_beside,
        "explanation": " ".join(_verdict(found)),
    }


def _lines(found: Why) -> list[str]:
    turn = found.turn
    agent = f", agent {turn.agent}" if turn.agent else ""
    failed = f", failed: {turn.error}" if turn.error else ""
    what = f"{turn.request_class or 'request'} of session {turn.session}{agent}{failed}"
    return [f"turn {turn.id}, {clock(turn.started_at)}, {what}", *_verdict(found), *_figures(found)]


def _verdict(found: Why) -> list[str]:
    if found.verdict == "first":
        return ["There is no earlier turn of this session or project whose prompt begins like this one."]
    if found.verdict == "other_model":
        others = "The turns before it in this session were another model's or server's"
        return [f"{others}; {found.turn.model} had not read this conversation before."]
    whose = "this session" if found.scope == "session" else "this project"
    compared = f"Compared with turn {found.compared_with} of {whose}: "
    if found.difference is None:
        grown = f"the prompt only grew, by {found.n_new} of {counted(found.turn.n_sections, 'section')}."
        return [compared + grown, *_circumstances(found)]
    return [compared + _difference(found.difference), *_circumstances(found)]


def _circumstances(found: Why) -> Iterator[str]:
    if found.after_compaction and found.difference is not None:
        yield "The client summarised the conversation in between: it rewrote its own history."
    if found.ran_beside:
        yield f"Turn {found.compared_with} was not read yet when this one began: nothing of it could be cached already."


def _difference(found: Difference) -> str:
    place = ""
    if found.instead_of is not None:
        place = f": {found.instead_of} stood there"
    elif found.change == "changed" and found.to_character:
        place = f" between characters {found.from_character:,} and {found.to_character:,}"
    before = f"{counted(found.n_shared, 'section')} before that ({found.n_shared_characters:,} characters) equal"
    return f"{found.name} ({found.kind}) {_VERBS[found.change]}{place}; {before}."


def _figures(found: Why) -> list[str]:
    about = "about " if found.is_estimate else ""
    how = "by its share of characters" if found.is_estimate else "as the server counted that turn's prompt"
    lines = [f"  the prompt           {_tokens(found.turn.tokens_prompt)}"]
    if found.tokens_could is not None:
        lines.append(f"  could be cached      {about}{_tokens(found.tokens_could)}, {how}")
    if found.tokens_lost:
        what = "lost by the change " if found.scope == "session" else "not shared with it "
        lines.append(f"  {what}  about {_tokens(found.tokens_lost)}")
    lines.append(f"  was cached           {_reported(found)}")
    if found.kept_more:
        lines.append(
            "The server had more than that in its cache: another turn's prompt begins like this one too, or it"
        )
        lines.append("writes what changed further back in the prompt.")
    if found.kept_it is False:
        lines.append("The server read again what had not changed: its cache was emptied or given to others (a restart,")
        lines.append("other work in between), or its template writes earlier turns differently.")
    return lines


def _reported(found: Why) -> str:
    return (
        "not told by the server"
        if found.tokens_cached is None
        else f"{_tokens(found.tokens_cached)}, as the server told"
    )


def _tokens(count: int | None) -> str:
    return "not told by the server" if count is None else f"{count:,} tokens"
