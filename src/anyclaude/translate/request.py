"""A canonical prompt as an OpenAI chat completion request, for one profile."""

from collections.abc import Iterable, Iterator
from typing import Any, assert_never

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from anyclaude.prompt.canonical import Prompt
from anyclaude.translate.content import (
    error_text,
    json_text,
    nine_char_id,
    other_text,
    part_of,
    tool_definition,
)
from anyclaude.translate.profile import Profile
from anyclaude.translate.schema import rewrite_schema
from anyclaude.wire.blocks import (
    Block,
    OtherBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Message, MessagesRequest, Tool, ToolChoice
from anyclaude.wire.openai import (
    ChatMessage,
    ChatRequest,
    Function,
    FunctionCall,
    FunctionTool,
    ImagePart,
    Part,
    StreamOptions,
    TextPart,
    ToolCall,
)

IMAGE_BELOW = "[image: in the next message]"  # `tool` messages hold text only


def chat_request(
    prompt: Prompt, request: MessagesRequest, profile: Profile, *, model: str | None, max_tokens: int | None
) -> ChatRequest:
    """Streamed always: a whole answer is put together from the stream, by us. No `model`: the server's own choice."""
    tools = prompt.tools + (prompt.late_tools if profile.late_tools == "list" else ())
    choice = request.tool_choice if profile.takes_tool_choice and tools else None
    limit = UNSET if max_tokens is None else max_tokens
    return ChatRequest(
        model=UNSET if model is None else model,
        messages=chat_messages(prompt, profile),
        tools=tuple(_function_tool(tool, profile) for tool in tools),
        tool_choice=_tool_choice(choice, profile),
        parallel_tool_calls=False if choice and choice.disable_parallel_tool_use else UNSET,
        response_format=_response_format(request, profile),
        stop=request.stop_sequences,
        temperature=_given(request.temperature),
        top_p=_given(request.top_p),
        top_k=_given(request.top_k) if profile.takes_top_k else UNSET,
        max_tokens=limit if profile.max_tokens_field == "max_tokens" else UNSET,
        max_completion_tokens=limit if profile.max_tokens_field == "max_completion_tokens" else UNSET,
        stream=True,
        stream_options=StreamOptions(),
        extra=profile.stream_fields | _reasoning_fields(request, profile),
    )


def chat_messages(prompt: Prompt, profile: Profile) -> tuple[ChatMessage, ...]:
    late = {tool.name: _late_text(tool, profile) for tool in prompt.late_tools}
    head = [ChatMessage("system", "\n\n".join(prompt.system))] if prompt.system else []
    body = [item for message in prompt.messages for item in _messages(message, profile, late)]
    return (*head, *(_merged(body) if profile.must_alternate else body))


def _messages(message: Message, profile: Profile, late: dict[str, str]) -> Iterator[ChatMessage]:
    if message.role == "assistant":
        yield _assistant(message.content, profile)
    else:
        yield from _user(message.content, profile, late)


def _assistant(content: tuple[Block, ...], profile: Profile) -> ChatMessage:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[ToolCall] = []
    for block in content:
        match block:
            case TextBlock(text=text):
                texts.append(text)
            case ThinkingBlock(thinking=text):
                thoughts.append(text)
            case ToolUseBlock(id=call_id, name=name, input=arguments):
                calls.append(ToolCall(_call_id(call_id, profile), FunctionCall(name, json_text(arguments))))
            case OtherBlock():
                texts.append(other_text(block))
            case RedactedThinkingBlock():
                pass  # encrypted for the vendor; no other model can read it
            case _:
                texts.append(json_text(block))
    reasoning = {profile.reasoning_field: "\n".join(thoughts)} if profile.reasoning_field and thoughts else {}
    return ChatMessage("assistant", "\n".join(texts), tool_calls=tuple(calls), **reasoning)


def _user(content: tuple[Block, ...], profile: Profile, late: dict[str, str]) -> Iterator[ChatMessage]:
    """Results become `tool` messages; their images and the words around them a user turn after them."""
    parts: list[Part] = []
    for block in content:
        match block:
            case ToolResultBlock():
                result, pictures = _tool_result(block, profile, late)
                yield result
                parts += pictures
            case _:
                parts.append(_part(block, profile, late))
    if parts:
        yield ChatMessage("user", _content(parts))


def _tool_result(block: ToolResultBlock, profile: Profile, late: dict[str, str]) -> tuple[ChatMessage, list[Part]]:
    parts = [_part(inner, profile, late) for inner in block.content]
    text = "\n".join(part.text if isinstance(part, TextPart) else IMAGE_BELOW for part in parts)
    pictures = [part for part in parts if isinstance(part, ImagePart)]
    if block.is_error:
        text = error_text(text)
    return ChatMessage("tool", text, tool_call_id=_call_id(block.tool_use_id, profile)), [*pictures]


def _part(block: Block, profile: Profile, late: dict[str, str]) -> Part:
    if isinstance(block, ToolResultBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock):
        return TextPart(json_text(block))  # it has no place here, but nothing is dropped
    return part_of(block, takes_images=profile.takes_images, late_tools=late)


def _content(parts: list[Part]) -> str | tuple[Part, ...]:
    """Text alone is a plain string: mlx_lm.server and many templates know nothing else."""
    if any(isinstance(part, ImagePart) for part in parts):
        return tuple(parts)
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _merged(messages: Iterable[ChatMessage]) -> Iterator[ChatMessage]:
    held: ChatMessage | None = None
    for message in messages:
        if held is not None and held.role == message.role and held.role in ("user", "assistant"):
            held = _joined(held, message)
            continue
        if held is not None:
            yield held
        held = message
    if held is not None:
        yield held


def _joined(first: ChatMessage, second: ChatMessage) -> ChatMessage:
    parts = [*_parts(first.content), *_parts(second.content)]
    return replace(
        first,
        content=_content(parts),
        reasoning=_joined_thoughts(first.reasoning, second.reasoning),
        reasoning_content=_joined_thoughts(first.reasoning_content, second.reasoning_content),
        tool_calls=first.tool_calls + second.tool_calls,
    )


def _joined_thoughts(*texts: str | None) -> str | None:
    return "\n".join(text for text in texts if text) or None


def _parts(content: str | tuple[Part, ...]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    return content


def _function_tool(tool: Tool, profile: Profile) -> FunctionTool:
    return FunctionTool(Function(tool.name, tool.description, _parameters(tool, profile)))


def _parameters(tool: Tool, profile: Profile) -> dict[str, Any]:
    return rewrite_schema(tool.input_schema or {}, profile.schema_rules)


def _late_text(tool: Tool, profile: Profile) -> str:
    if profile.late_tools == "list":
        return f"Loaded tool: {tool.name}"
    return json_text({"type": "function", "function": tool_definition(tool, _parameters(tool, profile))})


def _tool_choice(choice: ToolChoice | None, profile: Profile) -> str | dict[str, Any] | UnsetType:
    if choice is None or choice.type == "auto":
        return UNSET
    match choice.type:
        case "any":
            return "required"
        case "none":
            return "none"
        case "tool" if not profile.takes_named_tool_choice:
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": choice.name}}
        case _:
            assert_never(choice.type)


def _response_format(request: MessagesRequest, profile: Profile) -> dict[str, Any] | UnsetType:
    wanted = request.output_config.format
    if wanted is None or wanted.json_schema is None or not profile.takes_json_schema:
        return UNSET
    schema = rewrite_schema(wanted.json_schema, profile.schema_rules)
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def _reasoning_fields(request: MessagesRequest, profile: Profile) -> dict[str, Any]:
    if request.thinking is not None and request.thinking.type == "disabled":
        return profile.thinking_off
    effort = request.output_config.effort
    if effort is None or profile.effort_field is None:
        return {}
    level = {"xhigh": "high", "max": "high"}.get(effort, effort)
    return (
        {"reasoning": {"effort": level}} if profile.effort_field == "reasoning.effort" else {"reasoning_effort": level}
    )


def _call_id(call_id: str, profile: Profile) -> str:
    return nine_char_id(call_id) if profile.nine_char_ids else call_id


def _given(value: float | int | None) -> Any:
    return UNSET if value is None else value
