import json
from typing import Any

import msgspec
import pytest

from anyclaude.wire.openai import (
    ChatMessage,
    ChatRequest,
    Function,
    FunctionCall,
    FunctionTool,
    ImagePart,
    ImageUrl,
    StreamOptions,
    TextPart,
    ToolCall,
    decode_chunk,
    encode_chat,
)


def encoded(request: ChatRequest) -> dict[str, Any]:
    return json.loads(encode_chat(request))


def test_what_was_not_given_is_not_written() -> None:
    assert encoded(ChatRequest((ChatMessage("user", "hi"),))) == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": False,
    }


def test_every_part_of_a_request_has_its_place() -> None:
    call = ToolCall("c1", FunctionCall("Bash", '{"a":1}'))
    request = ChatRequest(
        messages=(
            ChatMessage("assistant", "", reasoning="hm", tool_calls=(call,)),
            ChatMessage("tool", "out", tool_call_id="c1"),
            ChatMessage("user", (TextPart("see"), ImagePart(ImageUrl("data:x")))),
        ),
        model="m",
        max_tokens=5,
        tools=(FunctionTool(Function("Bash", "runs", {"type": "object"})),),
        tool_choice="required",
        stop=("x",),
        temperature=0.0,
        stream=True,
        stream_options=StreamOptions(),
        extra={"return_progress": True},
    )

    assert encoded(request) == {
        "messages": [
            {
                "role": "assistant",
                "content": "",
                "reasoning": "hm",
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "Bash", "arguments": '{"a":1}'}}],
            },
            {"role": "tool", "content": "out", "tool_call_id": "c1"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x"}}],
            },
        ],
        "model": "m",
        "max_tokens": 5,
        "tools": [
            {"type": "function", "function": {"name": "Bash", "description": "runs", "parameters": {"type": "object"}}}
        ],
        "tool_choice": "required",
        "stop": ["x"],
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
    }


def test_a_chunk_of_nulls_is_an_empty_chunk() -> None:
    chunk = decode_chunk(b'{"choices":null,"usage":null,"error":null,"prompt_progress":null,"id":"x"}')

    assert chunk.choices is None
    assert chunk.usage is None
    assert bytes(chunk.error) == b"null"


def test_nulls_inside_a_delta_are_nothing() -> None:
    chunk = decode_chunk(
        b'{"choices":[{"delta":{"content":null,"reasoning":null,"tool_calls":null,"refusal":null},"finish_reason":null}]}'
    )

    assert chunk.choices is not None
    assert chunk.choices[0].delta is not None
    assert chunk.choices[0].delta.content is None
    assert chunk.choices[0].delta.tool_calls is None


def test_an_error_of_any_shape_is_kept_as_it_came() -> None:
    assert bytes(decode_chunk(b'{"error":"words"}').error) == b'"words"'
    assert bytes(decode_chunk(b'{"error":{"a":1}}').error) == b'{"a":1}'
    assert bytes(decode_chunk(b"{}").error) == b""


@pytest.mark.parametrize("data", [b"", b"[DONE]", b"<html>", b"[]", b'{"choices":[{"delta":"x"}]}'])
def test_what_is_not_a_chunk_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_chunk(data)
