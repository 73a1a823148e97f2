"""`anyclaude trace replay [TURN]`: a recorded turn sent again, to any backend, and both answers side by side."""

import asyncio
import sys
import time
from collections.abc import Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.http import Clients
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.knowledge import Knowledge
from anyclaude.backends.seam import Progress, Target, Turn
from anyclaude.cli.engine import own_engine
from anyclaude.cli.show import or_dash, print_columns, print_json, say, seconds, visible
from anyclaude.cli.traced import head_of, load_trace, recorded_request
from anyclaude.config.settings import Settings
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.choice import Choice
from anyclaude.launch.choose import choose
from anyclaude.launch.local_model import hub_folder
from anyclaude.launch.model_store import last_used
from anyclaude.paths import Folders
from anyclaude.routing.choose import backend_for, choose_model, turn_for
from anyclaude.telemetry.trace_events import Answer, answer_of
from anyclaude.telemetry.trace_files import Trace, TraceEvent
from anyclaude.telemetry.traces import event_of

_HEAD = 120


class Result(Struct, frozen=True, kw_only=True):
    """One side of the comparison. None is what nobody told."""

    model: str
    server: str
    first_s: float | None
    whole_s: float | None
    tokens_prompt: int | None
    tokens_cached: int | None
    tokens_out: int | None
    stop_reason: str | None
    error: str | None
    tool_calls: tuple[str, ...]
    characters: int


def replay(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    """Raises ApiError where the backend refuses: then there is nothing to compare."""
    found = load_trace(line.operands[0] if line.operands else "last", folders)
    if found.request is not None and b"[secret" in msgspec.json.encode(found.request):
        say("secrets were taken out of this prompt: it is sent without them")
    choice = asyncio.run(
        choose(as_recorded(settings, found), hub_folder(environ), say, lambda: last_used(folders.ledger))
    )
    say(*choice.notes)
    turn = turn_of(found, choice, is_named=settings.model is not None)
    events = asyncio.run(_events(turn, choice.target, folders))
    before, now = answer_of(found.events), answer_of(events)
    rows = (
        _result(before, found.header.model, f"{found.header.backend} at {found.header.base_url}"),
        _result(now, turn.model, f"{choice.target.kind} at {choice.target.base_url}"),
    )
    same = {"text": before.text == now.text, "tool_calls": before.calls == now.calls}
    if "--json" in line.flags:
        print_json({"request_id": found.header.request_id, "recorded": rows[0], "replayed": rows[1], "same": same})
        return 0
    _print(*rows)
    _print_text(before.text, now.text)
    if not same["tool_calls"]:
        _print_calls(before, now)
    return 0


def as_recorded(settings: Settings, found: Trace) -> Settings:
    """Where no server is named, the one that answered then; without a key, which goes to named servers only."""
    if settings.mode is not None or settings.base_url is not None or found.header.backend not in KINDS:
        return settings
    kind = KINDS[found.header.backend]
    model = settings.model or (found.header.model if kind.profile.sends_model else None)
    sources = settings.sources | {"mode": "the trace", "base_url": "the trace"}
    return replace(settings, mode=kind.name, base_url=found.header.base_url, model=model, api_key=None, sources=sources)


def turn_of(found: Trace, choice: Choice, *, is_named: bool) -> Turn:
    request, target = recorded_request(found), choice.target
    model = target.model if is_named else None
    return turn_for(
        target,
        request,
        head_of(found),
        body=msgspec.json.encode(found.request),
        model=model or choose_model(target, found.header.model),
        betas=found.header.headers.get("anthropic-beta"),
    )


async def _events(turn: Turn, target: Target, folders: Folders) -> list[TraceEvent]:
    """The whole answer, with times from the moment of sending. The engine, where it is meant, is one of its own."""
    clients, engine = Clients(), EngineProcess(own_engine(folders, target.engine_options))
    events: list[TraceEvent] = []
    started = time.monotonic()
    progress = _ProgressLine()
    try:
        async for item in backend_for(target, clients, Knowledge(), engine).open(turn):
            if isinstance(item, Progress):
                progress.show(item)
            else:
                progress.end()
                events.append(event_of(time.monotonic() - started, item))
    finally:
        progress.end()
        await engine.close()
        await clients.close()
    return events


class _ProgressLine:
    """How far the prompt is read, on one line of a terminal. Elsewhere it would be noise."""

    def __init__(self) -> None:
        self._is_open = False

    def show(self, progress: Progress) -> None:
        if sys.stderr.isatty():
            self._is_open = True
            words = f"\rprompt: {progress.n_read:,} of {progress.n_total:,} tokens read"
            print(words, end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._is_open:
            self._is_open = False
            print(file=sys.stderr)


def _result(answer: Answer, model: str, server: str) -> Result:
    return Result(
        model=model,
        server=server,
        first_s=answer.first_s,
        whole_s=answer.last_s,
        tokens_prompt=answer.tokens.prompt,
        tokens_cached=answer.tokens.cached,
        tokens_out=answer.tokens.out,
        stop_reason=answer.stop_reason,
        error=answer.error,
        tool_calls=tuple(call.name for call in answer.calls),
        characters=len(answer.text),
    )


def _print(*results: Result) -> None:
    rows = {
        "": ["recorded", "replayed"],
        "model": [each.model for each in results],
        "server": [each.server for each in results],
        "first piece": [seconds(each.first_s) for each in results],
        "whole": [seconds(each.whole_s) for each in results],
        "prompt tokens": [or_dash(each.tokens_prompt) for each in results],
        "cached": [or_dash(each.tokens_cached) for each in results],
        "out": [or_dash(each.tokens_out) for each in results],
        "end": [each.error or or_dash(each.stop_reason) for each in results],
        "tool calls": [", ".join(each.tool_calls) or "-" for each in results],
        "characters": [f"{each.characters:,}" for each in results],
    }
    print_columns([(label, *cells) for label, cells in rows.items()])


def _print_text(before: str, now: str) -> None:
    if before == now:
        print("\nthe text is the same" if before else "\nneither has text")
        return
    at = next((n for n, (one, other) in enumerate(zip(before, now, strict=False)) if one != other), None)
    at = min(len(before), len(now)) if at is None else at
    print(f"\nthe texts differ from character {at:,} on")
    print(f"  recorded: {visible(_from(before, at))}")
    print(f"  replayed: {visible(_from(now, at))}")


def _from(text: str, at: int) -> str:
    rest = " ".join(text[at : at + _HEAD].split())
    return rest + ("…" if len(text) > at + _HEAD else "") or "(ends here)"


def _print_calls(before: Answer, now: Answer) -> None:
    print("\nthe tool calls differ")
    for label, answer in (("recorded", before), ("replayed", now)):
        for call in answer.calls:
            print(visible(f"  {label}: {call.name} {call.arguments}"))
