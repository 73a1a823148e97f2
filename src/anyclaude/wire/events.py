"""Events of a Messages API stream, as values that encode to server-sent events.

Order (Messages API, "Streaming"): `message_start`, then per block start, deltas, stop, then
`message_delta` and `message_stop`; `ping` and `error` at any time.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from anyclaude.wire.sse import encode_sse

StopReason = Literal[
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
]


class Usage(Struct, frozen=True, kw_only=True):
    """Tokens as the backend counted them. A field that it did not tell is absent, not zero.

    `input_tokens + cache_read_input_tokens + cache_creation_input_tokens` is the whole prompt.
    """

    input_tokens: int | UnsetType = UNSET
    output_tokens: int = 0
    cache_read_input_tokens: int | UnsetType | None = UNSET
    cache_creation_input_tokens: int | UnsetType | None = UNSET


class TextStart(Struct, frozen=True, tag="text"):
    text: str = ""


class ThinkingStart(Struct, frozen=True, tag="thinking"):
    thinking: str = ""
    signature: str = ""


class ToolUseStart(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any] = {}


class TextDelta(Struct, frozen=True, tag="text_delta"):
    text: str


class ThinkingDelta(Struct, frozen=True, tag="thinking_delta"):
    thinking: str


class SignatureDelta(Struct, frozen=True, tag="signature_delta"):
    """The last delta of a thinking block."""

    signature: str


class InputJsonDelta(Struct, frozen=True, tag="input_json_delta"):
    partial_json: str


class StartedMessage(Struct, frozen=True):
    id: str
    model: str
    usage: Usage
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    content: tuple[()] = ()
    stop_reason: None = None
    stop_sequence: None = None


class MessageStart(Struct, frozen=True, tag="message_start"):
    message: StartedMessage


class BlockStart(Struct, frozen=True, tag="content_block_start"):
    index: int
    content_block: TextStart | ThinkingStart | ToolUseStart


class BlockDelta(Struct, frozen=True, tag="content_block_delta"):
    index: int
    delta: TextDelta | ThinkingDelta | SignatureDelta | InputJsonDelta


class BlockStop(Struct, frozen=True, tag="content_block_stop"):
    index: int


class Stop(Struct, frozen=True):
    stop_reason: StopReason
    stop_sequence: str | None = None


class MessageDelta(Struct, frozen=True, tag="message_delta"):
    delta: Stop
    usage: Usage


class MessageStop(Struct, frozen=True, tag="message_stop"):
    pass


class Ping(Struct, frozen=True, tag="ping"):
    pass


class ErrorBody(Struct, frozen=True):
    type: str
    message: str


class Error(Struct, frozen=True, tag="error"):
    error: ErrorBody
    request_id: str | UnsetType = UNSET


class Foreign(Struct, frozen=True):
    """An event of a server that speaks the Messages API itself, passed on as it came."""

    name: str
    data: bytes


Event = MessageStart | BlockStart | BlockDelta | BlockStop | MessageDelta | MessageStop | Ping | Error | Foreign

_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    if isinstance(event, Foreign):
        return encode_sse(event.name, event.data)
    return encode_sse(str(event.__struct_config__.tag), _encoder.encode(event))
