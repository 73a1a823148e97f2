"""`anyclaude trace show [TURN]`: what was asked, what came when, and the answer."""

from typing import Any

import msgspec

from anyclaude.cli.show import clock, or_dash, print_json, seconds, visible
from anyclaude.cli.traced import load_trace, recorded_request
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.prompt.canonical import is_reminder
from anyclaude.prompt.sections import tool_text
from anyclaude.telemetry.trace_events import Answer, Step, answer_of, folded
from anyclaude.telemetry.trace_files import Trace
from anyclaude.wire.blocks import TextBlock, ToolResultBlock, ToolUseBlock
from anyclaude.wire.messages import Message

_WORDS = 300


def show(line: CommandLine, folders: Folders) -> int:
    found = load_trace(line.operands[0] if line.operands else "last", folders)
    steps, answer = folded(found.events), answer_of(found.events)
    asked = _asked(found)
    if "--json" in line.flags:
        print_json({"header": found.header, "asked": asked, "events": steps, "answer": answer, "end": found.end})
        return 0
    _print_header(found)
    _print_asked(asked)
    _print_steps(steps)
    _print_answer(answer)
    return 0


def _asked(found: Trace) -> dict[str, Any]:
    request = recorded_request(found)
    return {
        "model": request.model,
        "bytes": len(msgspec.json.encode(found.request)),
        "tools": len(request.tools),
        "tools_characters": sum(len(tool_text(tool)) for tool in request.tools),
        "system_characters": sum(len(text) for text in request.system),
        "messages": len(request.messages),
        "max_tokens": request.max_tokens,
        "is_streamed": request.stream,
        "last_words": _last_words(request.messages),
    }


def _last_words(messages: tuple[Message, ...]) -> str:
    """What the person said last, or the tools whose results were sent."""
    said = next((message for message in reversed(messages) if message.role == "user"), None)
    if said is None:
        return ""
    words = [block.text for block in said.content if isinstance(block, TextBlock) and not is_reminder(block)]
    if any(words):
        return _shortened(" ".join(words))
    names = {block.id: block.name for each in messages for block in each.content if isinstance(block, ToolUseBlock)}
    results = [block for block in said.content if isinstance(block, ToolResultBlock)]
    return f"(results of {', '.join(names.get(block.tool_use_id, '?') for block in results)})" if results else ""


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _WORDS else text[: _WORDS - 1] + "…"


def _print_header(found: Trace) -> None:
    header, end = found.header, found.end
    agent = f", agent {header.agent}" if header.agent else ""
    print(f"{header.request_id}, {clock(header.started_at)}, {header.request_class or 'request'}{agent}")
    print(f"  session    {header.session}")
    print(f"  project    {header.project}")
    print(f"  server     {header.model} on {header.backend} at {header.base_url}")
    if end is None:
        print("  end        unfinished: it still runs, or its server was killed")
        return
    tokens = ", ".join(
        f"{name} {or_dash(value)}"
        for name, value in (("prompt", end.tokens_prompt), ("cached", end.tokens_cached), ("out", end.tokens_out))
    )
    print(f"  tokens     {tokens}")
    print(f"  times      first piece {seconds(end.ttft_s)}, whole {seconds(end.duration_s)}")
    print(f"  end        {visible(end.error or or_dash(end.stop_reason))}")


def _print_asked(asked: dict[str, Any]) -> None:
    print("\nasked")
    print(f"  {asked['model']}, at most {or_dash(asked['max_tokens'])} tokens, {asked['bytes']:,} bytes")
    print(f"  {asked['tools']} tools ({asked['tools_characters']:,} characters), system text"
          f" ({asked['system_characters']:,} characters), {asked['messages']} messages")  # fmt: skip
    print(f"  last words: {visible(asked['last_words']) or '-'}")


def _print_steps(steps: list[Step]) -> None:
    print("\nevents")
    for step in steps:
        what = visible(step.what if step.block is None else f"{step.what} (block {step.block})")
        if step.n == 1:
            print(f"  {step.from_s:9.3f} s  {what}")
        else:
            size = f", {step.n_characters:,} characters" if step.n_characters else ""
            print(f"  {step.from_s:9.3f} s  {what}: {step.n} pieces{size}, until {step.to_s:.3f} s")


def _print_answer(answer: Answer) -> None:
    print("\nanswer")
    if answer.thinking:
        print(f"  ({len(answer.thinking):,} characters of thinking)")
    if answer.text:
        print(visible(answer.text))
    for call in answer.calls:
        print(visible(f"  call {call.name} {call.arguments}"))
    if answer.error:
        print(f"  error: {visible(answer.error)}")
