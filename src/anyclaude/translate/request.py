"""A canonical prompt as an OpenAI chat completion request, for one profile."""

from collections.abc import Iterator
from typing import Any, assert_never

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.policy import fitted
from anyclaude.prompt.reminders import reminder
from anyclaude.translate.content import (
    error_text,
    image_note,
    json_text,
    other_text,
    part_of,
    tool_definition,
)
from anyclaude.translate.profile import Profile
from anyclaude.translate.schema import rewrite_schema
from anyclaude.wire.blocks import (
    Block,
    ImageBlock,
    OtherBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
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
    prompt = fitted(prompt, profile.policy)
    tools = prompt.tools + (prompt.late_tools if profile.policy.late_tools == "list" else ())
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
    """Of a prompt that is fitted to the profile's policy."""
    late = {tool.name: _late_text(tool, profile) for tool in prompt.late_tools}
    head = [ChatMessage("system", "\n\n".join(prompt.system))] if prompt.system else []
    return (*head, *(item for message in prompt.messages for item in _messages(message, profile, late)))


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
                calls.append(ToolCall(call_id, FunctionCall(name, json_text(arguments))))
            case OtherBlock():
                texts.append(other_text(block))
            case RedactedThinkingBlock():
                pass  # encrypted for the vendor; no other model can read it
            case _:
                texts.append(json_text(block))
    reasoning = {profile.reasoning_field: "\n".join(thoughts)} if profile.reasoning_field and thoughts else {}
    return ChatMessage("assistant", "\n".join(texts), tool_calls=tuple(calls), **reasoning)


def _user(content: tuple[Block, ...], profile: Profile, late: dict[str, str]) -> Iterator[ChatMessage]:
    """Results become `tool` messages; their images and the words around them a user turn after them. Where turns must
    alternate no user turn may follow: the words join the last result, and notes take the images' place."""
    results: list[ChatMessage] = []
    parts: list[Part] = []
    joins = profile.policy.alternates and any(isinstance(block, ToolResultBlock) for block in content)
    for block in map(_with_notes, content) if joins and profile.takes_images else content:
        match block:
            case ToolResultBlock():
                result, pictures = _tool_result(block, profile, late)
                results.append(result)
                parts += pictures
            case ToolReferenceBlock(tool_name=name) if name in late:
                parts.append(TextPart(_joined_text(late[name])))
            case _:
                parts.append(_part(block, profile, late))
    if joins:
        words = [part.text for part in parts if isinstance(part, TextPart)]
        results[-1] = replace(results[-1], content="\n".join([str(results[-1].content), *words]))
        parts = []
    yield from results
    if parts:
        yield ChatMessage("user", _content(parts))


def _with_notes(block: Block) -> Block:
    match block:
        case ImageBlock():
            return TextBlock(image_note(block, "this model's template takes no image beside a tool's result"))
        case ToolResultBlock(content=inner):
            return replace(block, content=tuple(_with_notes(each) for each in inner))
        case _:
            return block


def _joined_text(definition: str) -> str:
    """A tool that joined unannounced."""
    return reminder(f"A tool joined and can be called from now on:\n{definition}").text


def _tool_result(block: ToolResultBlock, profile: Profile, late: dict[str, str]) -> tuple[ChatMessage, list[Part]]:
    parts = [_part(inner, profile, late) for inner in block.content]
    text = "\n".join(part.text if isinstance(part, TextPart) else IMAGE_BELOW for part in parts)
    pictures = [part for part in parts if isinstance(part, ImagePart)]
    if block.is_error:
        text = error_text(text)
    return ChatMessage("tool", text, tool_call_id=block.tool_use_id), [*pictures]


def _part(block: Block, profile: Profile, late: dict[str, str]) -> Part:
    if isinstance(block, ToolResultBlock | ToolUseBlock | ThinkingBlock | RedactedThinkingBlock):
        return TextPart(json_text(block))  # it has no place here, but nothing is dropped
    return part_of(block, takes_images=profile.takes_images, late_tools=late)


def _content(parts: list[Part]) -> str | tuple[Part, ...]:
    """Text alone is a plain string: mlx_lm.server and many templates know nothing else."""
    if any(isinstance(part, ImagePart) for part in parts):
        return tuple(parts)
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _function_tool(tool: Tool, profile: Profile) -> FunctionTool:
    return FunctionTool(Function(tool.name, tool.description, _parameters(tool, profile)))


def _parameters(tool: Tool, profile: Profile) -> dict[str, Any]:
    return rewrite_schema(tool.input_schema or {}, profile.schema_rules)


def _late_text(tool: Tool, profile: Profile) -> str:
    if profile.policy.late_tools == "list":
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


def _given(value: float | int | None) -> Any:
    return UNSET if value is None else value
