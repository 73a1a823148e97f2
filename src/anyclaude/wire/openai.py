"""OpenAI chat completions: the request that we write and the chunks that servers stream.

Chunks are read leniently: each server leaves out or adds fields of its own, and nulls stand
where others leave a field away.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType


class FunctionCall(Struct, frozen=True):
    name: str
    arguments: str


class ToolCall(Struct, frozen=True):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ImageUrl(Struct, frozen=True):
    url: str


class TextPart(Struct, frozen=True, tag="text"):
    text: str


class ImagePart(Struct, frozen=True, tag="image_url"):
    image_url: ImageUrl


Part = TextPart | ImagePart


class ChatMessage(Struct, frozen=True, omit_defaults=True):
    role: Literal["system", "user", "assistant", "tool"]
    content: str | tuple[Part, ...]
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


class Function(Struct, frozen=True):
    name: str
    description: str
    parameters: dict[str, Any]


class FunctionTool(Struct, frozen=True):
    function: Function
    type: Literal["function"] = "function"


class StreamOptions(Struct, frozen=True):
    include_usage: bool = True


class ChatRequest(Struct, frozen=True, omit_defaults=True):
    """`extra` holds what one kind of server wants on top; `encode_chat` merges it in."""

    messages: tuple[ChatMessage, ...]
    model: str | UnsetType = UNSET
    max_tokens: int | UnsetType = UNSET
    max_completion_tokens: int | UnsetType = UNSET
    tools: tuple[FunctionTool, ...] = ()
    tool_choice: str | dict[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType = UNSET
    response_format: dict[str, Any] | UnsetType = UNSET
    stop: tuple[str, ...] = ()
    temperature: float | UnsetType = UNSET
    top_p: float | UnsetType = UNSET
    top_k: int | UnsetType = UNSET
    stream: bool = False
    stream_options: StreamOptions | UnsetType = UNSET
    extra: dict[str, Any] = {}


def encode_chat(request: ChatRequest) -> bytes:
    fields: dict[str, Any] = {
        name: value
        for name in request.__struct_fields__
        if name != "extra" and (value := getattr(request, name)) is not UNSET and value != ()
    }
    return msgspec.json.encode(fields | request.extra)


class CallDelta(Struct, frozen=True):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class ToolCallDelta(Struct, frozen=True):
    index: int | None = None
    id: str | None = None
    function: CallDelta | None = None


class Delta(Struct, frozen=True):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    refusal: str | None = None


class Choice(Struct, frozen=True):
    """`message` stands for `delta` in an answer that is not streamed."""

    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class PromptDetails(Struct, frozen=True):
    cached_tokens: int | None = None


class ChatUsage(Struct, frozen=True):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class PromptProgress(Struct, frozen=True):
    """llama-server with `return_progress`: tokens of the prompt, `cache` of them not read again."""

    total: int
    processed: int
    cache: int = 0


class Chunk(Struct, frozen=True):
    """One `data:` of a stream. `error` is how several servers break off in the middle."""

    choices: tuple[Choice, ...] | None = None
    usage: ChatUsage | None = None
    error: msgspec.Raw = msgspec.Raw()
    prompt_progress: PromptProgress | None = None


_chunk_decoder = msgspec.json.Decoder(Chunk)


def decode_chunk(data: bytes) -> Chunk:
    """Raises msgspec.DecodeError or msgspec.ValidationError on what is not a chunk."""
    return _chunk_decoder.decode(data)
