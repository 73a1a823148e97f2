"""A Messages API request (`POST /v1/messages`, `/v1/messages/count_tokens`) as frozen values.

Tolerant of what it does not know, strict about what is impossible: the error names the field.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from anyclaude.wire.blocks import BadField, Block, TextBlock, bad_field, decode_content

Role = Literal["user", "assistant", "system"]


class Message(Struct, frozen=True):
    role: Role
    content: tuple[Block, ...]


class Tool(Struct, frozen=True):
    """A tool of the client's own, or a server tool (no `input_schema`, a dated `type`)."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    defer_loading: bool | None = None
    strict: bool | None = None

    @property
    def is_server_tool(self) -> bool:
        return self.input_schema is None


class ToolChoice(Struct, frozen=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(Struct, frozen=True):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(Struct, frozen=True, rename={"json_schema": "schema"}):
    type: str
    json_schema: dict[str, Any] | None = None


class OutputConfig(Struct, frozen=True):
    effort: str | None = None
    format: OutputFormat | None = None


class MessagesRequest(Struct, frozen=True):
    """One request. `max_tokens` is None for `count_tokens` only."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    max_tokens: int | None = None
    stream: bool = False
    stop_sequences: tuple[str, ...] = ()
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


_MaxTokens = Annotated[int, Meta(ge=1)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _MessageWire(Struct, frozen=True):
    role: Role
    content: str | list[msgspec.Raw]


class _SystemText(Struct, frozen=True):
    text: str
    type: Literal["text"] = "text"


class _Wire(Struct, frozen=True):
    model: Annotated[str, Meta(min_length=1)]
    messages: list[msgspec.Raw]
    system: str | list[_SystemText] | None = None
    tools: list[Tool] | None = None
    max_tokens: _MaxTokens | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _Share | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None


_decoder = msgspec.json.Decoder(_Wire)
_message_decoder = msgspec.json.Decoder(_MessageWire)


def decode_request(body: bytes, *, needs_max_tokens: bool = True) -> MessagesRequest:
    """Raises BadField, with the path of the first impossible value."""
    try:
        wire = _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise bad_field(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadField("", f"the body is not JSON: {error}") from None
    if needs_max_tokens and wire.max_tokens is None:
        raise BadField("max_tokens", "Field required")
    if not wire.messages:
        raise BadField("messages", "at least one message is required")
    return MessagesRequest(
        model=wire.model,
        messages=_messages(wire.messages),
        system=_system(wire.system),
        tools=tuple(wire.tools or ()),
        max_tokens=wire.max_tokens,
        stream=bool(wire.stream),
        stop_sequences=tuple(wire.stop_sequences or ()),
        tool_choice=wire.tool_choice,
        thinking=wire.thinking,
        output_config=wire.output_config or OutputConfig(),
        temperature=wire.temperature,
        top_p=wire.top_p,
        top_k=wire.top_k,
    )


def _messages(raws: list[msgspec.Raw]) -> tuple[Message, ...]:
    try:
        return tuple(_message(raw, f"messages.{n}") for n, raw in enumerate(raws))
    except (UnicodeDecodeError, RecursionError) as error:
        raise BadField("messages", f"cannot be read: {error}") from None


def _message(raw: msgspec.Raw, path: str) -> Message:
    try:
        wire = _message_decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise bad_field(error, path) from None
    return Message(wire.role, decode_content(wire.content, f"{path}.content"))


def _system(system: str | list[_SystemText] | None) -> tuple[str, ...]:
    if isinstance(system, str):
        return (system,) if system else ()
    return tuple(block.text for block in system or ())


def text_of(content: tuple[Block, ...]) -> str:
    """The words of text blocks alone, one after the other on lines of their own."""
    return "\n".join(block.text for block in content if isinstance(block, TextBlock))
