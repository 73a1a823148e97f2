import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.wire.blocks import (
    BadField,
    Base64Source,
    Block,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    OtherBlock,
    RedactedThinkingBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from anyclaude.wire.messages import (
    Message,
    MessagesRequest,
    OutputFormat,
    ToolChoice,
    decode_request,
    text_of,
)


def body(**fields: Any) -> bytes:
    whole = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "hello"}]} | fields
    return json.dumps({key: value for key, value in whole.items() if value is not ...}).encode()


def body_with(block: Any) -> bytes:
    """The block stands second in the first message."""
    return body(messages=[{"role": "user", "content": [{"type": "text", "text": "x"}, block]}])


def block_of(fields: dict[str, Any]) -> Block:
    return decode_request(body_with(fields)).messages[0].content[1]


def problem(raw: bytes, *, needs_max_tokens: bool = True) -> str:
    with pytest.raises(BadField) as caught:
        decode_request(raw, needs_max_tokens=needs_max_tokens)
    return str(caught.value)


def read_or_refuse(raw: bytes) -> tuple[str | None, MessagesRequest | None]:
    try:
        return None, decode_request(raw)
    except BadField as error:
        return str(error), None


def test_the_smallest_request() -> None:
    assert decode_request(body()) == MessagesRequest(
        model="m", messages=(Message("user", (TextBlock("hello"),)),), max_tokens=10
    )


def test_every_field_is_read() -> None:
    request = decode_request(
        body(
            system=[
                {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "b"},
            ],
            tools=[{"name": "Bash", "description": "runs", "input_schema": {"type": "object"}, "defer_loading": True}],
            stream=True,
            stop_sequences=["</x>"],
            tool_choice={"type": "tool", "name": "Bash", "disable_parallel_tool_use": True},
            thinking={"type": "enabled", "budget_tokens": 31999, "display": "omitted"},
            output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            temperature=0.5,
            top_p=0.9,
            top_k=40,
        )
    )

    assert request.system == ("a", "b")
    assert [(tool.name, tool.description, tool.defer_loading) for tool in request.tools] == [("Bash", "runs", True)]
    assert request.stream
    assert request.stop_sequences == ("</x>",)
    assert request.tool_choice == ToolChoice("tool", "Bash", disable_parallel_tool_use=True)
    assert request.thinking is not None
    assert (request.thinking.type, request.thinking.budget_tokens) == ("enabled", 31999)
    assert request.output_config.effort == "high"
    assert request.output_config.format == OutputFormat("json_schema", {"type": "object"})
    assert (request.temperature, request.top_p, request.top_k) == (0.5, 0.9, 40)


def test_a_string_and_a_list_of_one_text_are_the_same_content() -> None:
    text = [{"type": "text", "text": "hello", "cache_control": {"type": "ephemeral"}}]

    assert decode_request(body(messages=[{"role": "user", "content": text}])) == decode_request(body())


def test_a_system_string_and_a_list_are_the_same() -> None:
    assert decode_request(body(system="a")) == decode_request(body(system=[{"type": "text", "text": "a"}]))


def test_no_system_an_empty_one_and_null_are_the_same() -> None:
    assert decode_request(body(system="")) == decode_request(body(system=None)) == decode_request(body())


def test_an_empty_string_is_no_content() -> None:
    assert decode_request(body(messages=[{"role": "assistant", "content": ""}])).messages[0].content == ()


@pytest.mark.parametrize(
    ("fields", "block"),
    [
        ({"type": "text", "text": " a\n", "citations": None}, TextBlock(" a\n")),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
            ImageBlock(Base64Source("image/png", "AA==")),
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://x"}}, ImageBlock(UrlSource("https://x"))),
        ({"type": "image", "source": {"type": "file", "file_id": "f1"}}, ImageBlock(FileSource("f1"))),
        (
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "d"}, "title": "T"},
            DocumentBlock(TextSource("d"), title="T"),
        ),
        (
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "d"}]}},
            DocumentBlock(ContentSource([{"type": "text", "text": "d"}])),
        ),
        (
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AA"}},
            DocumentBlock(Base64Source("application/pdf", "AA")),
        ),
        (
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "c"}]},
            SearchResultBlock("s", "t", [{"type": "text", "text": "c"}]),
        ),
        ({"type": "thinking", "thinking": "hm", "signature": ""}, ThinkingBlock("hm")),
        ({"type": "thinking", "thinking": "hm"}, ThinkingBlock("hm")),
        ({"type": "redacted_thinking", "data": "x"}, RedactedThinkingBlock("x")),
        ({"type": "tool_use", "id": "t", "name": "N", "input": {"a": [1]}}, ToolUseBlock("t", "N", {"a": [1]})),
        ({"type": "tool_reference", "tool_name": "N"}, ToolReferenceBlock("N")),
        ({"type": "tool_result", "tool_use_id": "t"}, ToolResultBlock("t", ())),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": "out", "is_error": True},
            ToolResultBlock("t", (TextBlock("out"),), is_error=True),
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "is_error": None, "content": [{"type": "text", "text": "a"}]},
            ToolResultBlock("t", (TextBlock("a"),)),
        ),
    ],
)
def test_every_kind_of_block_is_read(fields: dict[str, Any], block: Block) -> None:
    assert block_of(fields) == block


def test_an_unknown_block_is_kept_whole() -> None:
    fields = {"type": "server_tool_use", "id": "s", "input": {"query": "x"}, "future": [1, None]}

    assert block_of(fields) == OtherBlock("server_tool_use", fields)


def test_an_unknown_block_reads_the_same_wherever_the_client_puts_its_cache_control() -> None:
    fields = {"type": "server_tool_use", "id": "x"}
    assert block_of(fields | {"cache_control": {"type": "ephemeral"}}) == OtherBlock("server_tool_use", fields)


def test_a_tool_that_the_client_announces_is_a_reference_to_it() -> None:
    tool = {"type": "tool_reference", "name": "AskUserQuestion"}
    announced = block_of({"type": "tool_addition", "tool": tool, "cache_control": {"type": "ephemeral"}})
    assert announced == ToolReferenceBlock("AskUserQuestion")
    defined = {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": {"name": "Later"}}}
    assert block_of(defined) == OtherBlock("tool_addition", defined)  # by value: nothing of it is lost


def test_unknown_fields_are_tolerated_at_every_level() -> None:
    request = decode_request(
        body(
            betas=["x-2027-01-01"],
            context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
            metadata={"user_id": "{}"},
            safeguards=[{"type": "dangerous_tool_use"}],
            thinking={"type": "adaptive", "display": "updates", "new": 1},
            tool_choice={"type": "auto", "new": 1},
            tools=[{"name": "a", "input_schema": {}, "eager_input_streaming": True, "allowed_callers": []}],
            messages=[{"role": "user", "id": 7, "content": [{"type": "text", "text": "hello", "new": {}}]}],
        )
    )

    assert request.messages == (Message("user", (TextBlock("hello"),)),)
    assert request.thinking is not None
    assert request.thinking.type == "adaptive"


def test_a_server_tool_is_known_by_its_missing_schema() -> None:
    request = decode_request(
        body(
            tools=[
                {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
                {"name": "a", "input_schema": {}},
            ]
        )
    )

    assert [tool.is_server_tool for tool in request.tools] == [True, False]


def test_null_stands_for_a_field_left_away() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ["system", "tools", "stream", "stop_sequences", "tool_choice", "thinking", "output_config", "temperature"]
    )

    assert decode_request(body(**nothing)) == decode_request(body())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": ...}, "Object missing required field `model`"),
        ({"model": ""}, "model: Expected `str` of length >= 1"),
        ({"model": 7}, "model: Expected `str`, got `int`"),
        ({"max_tokens": ...}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens: Expected `int` >= 1"),
        ({"max_tokens": "9"}, "max_tokens: Expected `int | null`, got `str`"),
        ({"messages": ...}, "Object missing required field `messages`"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": "x"}, "messages: Expected `array`, got `str`"),
        ({"messages": ["x"]}, "messages.0: Expected `object`, got `str`"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Invalid enum value 'tool'"),
        ({"messages": [{"content": "x"}]}, "messages.0: Object missing required field `role`"),
        ({"messages": [{"role": "user"}]}, "messages.0: Object missing required field `content`"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content: Expected `str | array`, got `null`"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content: Expected `str | array`, got `int`"),
        ({"system": [{"type": "image"}]}, "system.0.type: Invalid enum value 'image'"),
        ({"system": [{"type": "text"}]}, "system.0: Object missing required field `text`"),
        ({"tools": [{"input_schema": {}}]}, "tools.0: Object missing required field `name`"),
        ({"tools": [{"name": "a", "input_schema": []}]}, "tools.0.input_schema: Expected `object | null`, got `array`"),
        ({"stream": "yes"}, "stream: Expected `bool | null`, got `str`"),
        ({"stop_sequences": [1]}, "stop_sequences.0: Expected `str`, got `int`"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type: Invalid enum value 'some'"),
        ({"thinking": {}}, "thinking: Object missing required field `type`"),
        ({"temperature": 2.5}, "temperature: Expected `float` <= 2.0"),
        ({"top_p": 1.5}, "top_p: Expected `float` <= 1.0"),
        ({"top_k": -1}, "top_k: Expected `int` >= 0"),
        ({"output_config": {"format": {"type": "json_schema", "schema": 3}}}, "output_config.format.schema: "),
    ],
)
def test_an_impossible_value_is_an_error_that_names_its_path(fields: dict[str, Any], expected: str) -> None:
    assert problem(body(**fields)).startswith(expected)


@pytest.mark.parametrize(
    ("block", "path"),
    [
        ("x", "messages.0.content.1: "),
        (None, "messages.0.content.1: "),
        ({"text": "x"}, "messages.0.content.1: "),
        ({"type": 5}, "messages.0.content.1.type: "),
        ({"type": "text", "text": None}, "messages.0.content.1.text: "),
        ({"type": "image", "source": {"type": "ftp"}}, "messages.0.content.1.source.type: Invalid value 'ftp'"),
        ({"type": "image", "source": {"type": "base64", "data": 1}}, "messages.0.content.1.source"),
        ({"type": "document", "source": {"type": "url"}}, "messages.0.content.1.source: "),
        ({"type": "search_result", "source": "s", "title": "t", "content": ["x"]}, "messages.0.content.1.content.0: "),
        ({"type": "thinking", "thinking": 1}, "messages.0.content.1.thinking: "),
        ({"type": "tool_use", "id": "t", "name": "N", "input": "{}"}, "messages.0.content.1.input: "),
        ({"type": "tool_use", "name": "N", "input": {}}, "messages.0.content.1: Object missing required field `id`"),
        ({"type": "tool_result", "content": "x"}, "messages.0.content.1: "),
        ({"type": "tool_result", "tool_use_id": "t", "content": 1}, "messages.0.content.1.content: "),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}, {"type": "text"}]},
            "messages.0.content.1.content.1: Object missing required field `text`",
        ),
        (
            {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": {"type": "ftp"}}]},
            "messages.0.content.1.content.0.source.type: ",
        ),
    ],
)
def test_an_impossible_block_is_an_error_that_names_its_path(block: Any, path: str) -> None:
    assert problem(body_with(block)).startswith(path)


@pytest.mark.parametrize("raw", [b"", b"{", b"nonsense", b'"x', b'{"model":"m"} x'])
def test_a_body_that_is_not_json_is_an_error(raw: bytes) -> None:
    assert problem(raw)


@pytest.mark.parametrize("raw", [b"[]", b"5", b"null"])
def test_a_body_that_is_no_object_is_an_error(raw: bytes) -> None:
    assert problem(raw).startswith("Expected `object`")


def test_counting_tokens_needs_no_max_tokens() -> None:
    assert decode_request(body(max_tokens=...), needs_max_tokens=False).max_tokens is None


@pytest.mark.parametrize("depth", [400, 1000, 5000, 100_000])
def test_nested_results_are_an_error_and_not_a_crash(depth: int) -> None:
    nested = b'{"type":"tool_result","tool_use_id":"a","content":[' * depth + b"]}" * depth
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[%s]}]}' % nested

    assert "recursion" in problem(raw)


@pytest.mark.parametrize("field", [b'"metadata":%s', b'"tools":[{"name":"a","input_schema":%s}]', b'"messages":[%s]'])
def test_deep_json_anywhere_is_an_error_and_not_a_crash(field: bytes) -> None:
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000

    assert "recursion" in problem(b'{"model":"m",%s}' % (field % deep))


def test_text_that_is_not_utf8_is_an_error_where_nobody_mended_it() -> None:
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":"\xff"}]}]}'

    assert problem(raw).startswith("messages: cannot be read")


def test_large_numbers_in_arguments_are_kept_exactly() -> None:
    block = block_of(
        {"type": "tool_use", "id": "t", "name": "N", "input": {"big": 10**40, "small": -(2**70), "f": 1e300}}
    )

    assert isinstance(block, ToolUseBlock)
    assert block.input == {"big": 10**40, "small": -(2**70), "f": 1e300}


@pytest.mark.parametrize("number", [b"1e999", b"9" * 5000])
def test_numbers_beyond_all_measure_are_an_error_at_their_path(number: bytes) -> None:
    raw = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[%s]}]}'
    block = b'{"type":"tool_use","id":"t","name":"N","input":{"a":%s}}' % number

    assert problem(raw % block).startswith("messages.0.content.0.input: ")
    assert problem(b'{"model":"m","max_tokens":%s,"messages":[]}' % number).startswith("max_tokens: ")


def test_the_words_of_a_message_are_its_text_blocks_line_by_line() -> None:
    assert text_of((TextBlock("a"), ThinkingBlock("hm"), TextBlock("b "))) == "a\nb "
    assert text_of(()) == ""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(["model", "messages", "system", "tools", "max_tokens", "tool_choice", "thinking", "x"]), _JSON
    ),
    blocks=st.lists(
        st.dictionaries(st.sampled_from(["type", "text", "source", "content", "input", "id"]), _JSON), max_size=3
    ),
)
def test_any_json_is_read_or_refused_with_words(fields: dict[str, Any], blocks: list[dict[str, Any]]) -> None:
    whole = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": blocks}]} | fields
    refusal, request = read_or_refuse(json.dumps(whole).encode())

    assert refusal is None or refusal.strip()
    assert request is None or request.model == whole["model"]
