"""What one model's template can take, and the prompt fitted to it.

Pure, and every step keeps prefixes: what is appended to a prompt is appended to what it is fitted to.

Templates refuse what they cannot take (Mistral: other call ids than nine letters and digits, turns that do not
alternate; Gemma: `system`; Llama 3.1: two calls at once), or lose it in silence.
"""

import hashlib
import re
from collections.abc import Iterator
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.reminders import reminder
from anyclaude.wire.blocks import Block, TextBlock, ToolResultBlock, ToolUseBlock
from anyclaude.wire.messages import Message

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_CARRIED = re.compile(r"toolu_[0-9a-f]{12}_([A-Za-z0-9]{9})")


class Policy(Struct, frozen=True, kw_only=True):
    """The defaults suit most templates of models that call tools.

    late_tools  "expand": a loaded tool's schema is written where it was announced, and the head stays as it is; "list":
                it also joins `tools`, for servers that constrain or parse by them
    preamble    "user": in the first user turn, after the tools that templates put into the system turn, so that a new
                day or folder leaves them as they are; "system": with the system text
    system      "head": one system turn at the start; "user": none, its words open the first user turn
    alternates  turns of one role never follow each other, and words do not follow a tool's result
    one_call    an assistant turn makes one call at most: parallel calls become successive pairs
    call_ids    "nine": nine letters and digits, as Mistral's templates demand
    """

    late_tools: Literal["expand", "list"] = "list"
    preamble: Literal["user", "system"] = "user"
    system: Literal["head", "user"] = "head"
    alternates: bool = False
    one_call: bool = False
    call_ids: Literal["any", "nine"] = "any"


def fitted(prompt: Prompt, policy: Policy) -> Prompt:
    """The same prompt with everything in a place that the template has. The preamble is in its place after this."""
    prompt = preamble_placed(prompt, policy)
    if policy.system == "user":
        prompt = without_system_turn(prompt)
    messages = prompt.messages
    if policy.one_call:
        messages = one_call_a_turn(messages)
    if policy.alternates:
        messages = merged_turns(messages)
    if policy.call_ids == "nine":
        messages = with_nine_char_ids(messages)
    return replace(prompt, messages=messages)


def preamble_placed(prompt: Prompt, policy: Policy) -> Prompt:
    if policy.preamble == "system":
        return replace(prompt, system=prompt.system + prompt.preamble, preamble=())
    words = tuple(reminder(text) for text in prompt.preamble)
    return replace(prompt, preamble=(), messages=_opened(prompt.messages, words))


def without_system_turn(prompt: Prompt) -> Prompt:
    words = tuple(TextBlock(text) for text in prompt.system)
    return replace(prompt, system=(), messages=_opened(prompt.messages, words))


def _opened(messages: tuple[Message, ...], blocks: tuple[Block, ...]) -> tuple[Message, ...]:
    if not blocks:
        return messages
    if messages and messages[0].role == "user":
        return (replace(messages[0], content=(*blocks, *messages[0].content)), *messages[1:])
    return (Message("user", blocks), *messages)


def merged_turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role == message.role:
            merged[-1] = replace(message, content=(*merged[-1].content, *message.content))
        else:
            merged.append(message)
    return tuple(merged)


def one_call_a_turn(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Call, result, call, result: the results are those of the user turn that follows."""
    result: list[Message] = []
    waiting: list[Message] = []
    for message in messages:
        if message.role == "assistant":
            result += waiting
            first, *waiting = _single_calls(message)
            result.append(first)
        elif waiting:
            result += _paired(result.pop(), waiting, message)
            waiting = []
        else:
            result.append(message)
    return (*result, *waiting)


def _single_calls(message: Message) -> Iterator[Message]:
    """The turn cut before each call but the first."""
    part: list[Block] = []
    for block in message.content:
        if isinstance(block, ToolUseBlock) and any(isinstance(earlier, ToolUseBlock) for earlier in part):
            yield replace(message, content=tuple(part))
            part = []
        part.append(block)
    yield replace(message, content=tuple(part))


def _paired(first: Message, others: list[Message], answers: Message) -> Iterator[Message]:
    """Each call followed by its own result; whatever else the user turn holds comes after the last."""
    left = list(answers.content)
    turns = [first, *others]
    for n, turn in enumerate(turns):
        yield turn
        ids = {block.id for block in turn.content if isinstance(block, ToolUseBlock)}
        own = [block for block in left if isinstance(block, ToolResultBlock) and block.tool_use_id in ids]
        left = [block for block in left if block not in own]
        content = (*own, *left) if n == len(turns) - 1 else tuple(own)
        if content:
            yield replace(answers, content=content)


def with_nine_char_ids(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(replace(message, content=tuple(_renamed(block) for block in message.content)) for message in messages)


def _renamed(block: Block) -> Block:
    match block:
        case ToolUseBlock(id=call_id):
            return replace(block, id=nine_char_id(call_id))
        case ToolResultBlock(tool_use_id=call_id):
            return replace(block, tool_use_id=nine_char_id(call_id))
        case _:
            return block


def nine_char_id(call_id: str) -> str:
    """The id that the server gave, if the client's id carries it; else the same nine characters for the same id."""
    if carried := _CARRIED.fullmatch(call_id):
        return carried[1]
    return call_id if _NINE.fullmatch(call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def client_call_id(unique: str, server_id: str | None) -> str:
    """The id under which the client knows a call: unique in the conversation (`unique` is 24 hex digits), and carrying
    the server's own where that has nine characters, so that the model reads its own id again."""
    if server_id and _NINE.fullmatch(server_id):
        return f"toolu_{unique[:12]}_{server_id}"
    return f"toolu_{unique}"
