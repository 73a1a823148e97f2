import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.backends.kinds import KINDS
from anyclaude.prompt.canonical import canonical
from anyclaude.prompt.head import Head, Joined, Known
from anyclaude.prompt.policy import Policy, nine_char_id
from anyclaude.translate.profile import Profile
from anyclaude.translate.request import chat_request
from anyclaude.wire.messages import decode_request
from anyclaude.wire.openai import encode_chat

OPENAI_KINDS = sorted(name for name, kind in KINDS.items() if kind.speaks == "openai")
PLAIN = Profile()
ALTERNATING = Profile(policy=Policy(alternates=True))
BASH: dict[str, Any] = {
    "name": "Bash",
    "description": "runs a command",
    "input_schema": {"$schema": "x", "type": "object", "properties": {"command": {"type": "string"}}},
}
LATE: dict[str, Any] = {
    "name": "Web",
    "description": "fetches",
    "input_schema": {"type": "object"},
    "defer_loading": True,
}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAABBBB"}}
SHOWN_PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAABBBB"}}
PICTURE_NOTE = "[image not shown: image/png, 6 bytes; this model reads text only]"


def profile_of(kind: str) -> Profile:
    return KINDS[kind].profile


def sent(
    profile: Profile, *, model: str | None = "m", max_tokens: int | None = 100, head: Head | None = None, **fields: Any
) -> dict[str, Any]:
    """The JSON that the server gets for a request of the client's."""
    whole = {"model": "asked", "max_tokens": 7, "messages": [{"role": "user", "content": "hi"}]} | fields
    request = decode_request(json.dumps(whole).encode())
    chat = chat_request(canonical(request, head), request, profile, model=model, max_tokens=max_tokens)
    return json.loads(encode_chat(chat))


def messages(profile: Profile, *content: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    return sent(profile, messages=list(content), **fields)["messages"]


def user(*blocks: dict[str, Any] | str) -> dict[str, Any]:
    return {"role": "user", "content": [text(block) if isinstance(block, str) else block for block in blocks]}


def assistant(*blocks: dict[str, Any] | str) -> dict[str, Any]:
    return user(*blocks) | {"role": "assistant"}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def use(call_id: str = "toolu_1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "Bash", "input": arguments}


def result(content: Any = ..., *, call_id: str = "toolu_1", is_error: bool = False) -> dict[str, Any]:
    fields = {"type": "tool_result", "tool_use_id": call_id, "is_error": is_error}
    return fields if content is ... else fields | {"content": content}


# The whole


def test_a_turn_with_everything_as_a_plain_server_gets_it() -> None:
    assert sent(
        PLAIN,
        system=[text("You are"), text("careful.")],
        tools=[BASH],
        messages=[
            user("list it"),
            assistant({"type": "thinking", "thinking": "hm"}, "Listing.", use(command="ls")),
            user(result("a b"), "and now?"),
        ],
        stop_sequences=["</x>"],
        temperature=0.2,
        top_p=0.9,
        top_k=40,
    ) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are\n\ncareful."},
            {"role": "user", "content": "list it"},
            {
                "role": "assistant",
                "content": "Listing.",
                "tool_calls": [
                    {"id": "toolu_1", "type": "function", "function": {"name": "Bash", "arguments": '{"command":"ls"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "toolu_1", "content": "a b"},
            {"role": "user", "content": "and now?"},
        ],
        "max_tokens": 100,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "Bash",
                    "description": "runs a command",
                    "parameters": {"type": "object", "properties": {"command": {"type": "string"}}},
                },
            }
        ],
        "stop": ["</x>"],
        "temperature": 0.2,
        "top_p": 0.9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_the_smallest_turn_carries_nothing_that_was_not_asked_for(kind: str) -> None:
    profile = profile_of(kind)

    assert sent(profile) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        profile.max_tokens_field: 100,
        "stream": True,
        "stream_options": {"include_usage": True},
        **profile.stream_fields,
    }


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_a_long_conversation_extends_the_short_one(kind: str) -> None:
    turns = [user("one"), assistant("two", use(a=1)), user(result("three")), assistant("four"), user("five")]
    whole = messages(profile_of(kind), *turns, system="s", tools=[BASH])

    for n in (1, 3):
        part = messages(profile_of(kind), *turns[:n], system="s", tools=[BASH])
        assert whole[: len(part)] == part


# Names and limits


def test_mlx_lm_is_asked_without_a_model_and_the_others_with_one() -> None:
    assert {kind for kind in OPENAI_KINDS if not profile_of(kind).sends_model} == {"mlx-lm"}
    assert "model" not in sent(profile_of("mlx-lm"), model=None)
    assert sent(profile_of("mlx-lm"), model="chosen")["model"] == "chosen"


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_the_output_limit_goes_where_the_server_reads_it(kind: str) -> None:
    request = sent(profile_of(kind), max_tokens=321)
    named = {key: value for key, value in request.items() if key.startswith("max_")}

    assert named == {"max_completion_tokens" if kind == "vllm" else "max_tokens": 321}


def test_no_limit_is_no_field() -> None:
    assert not [key for key in sent(PLAIN, max_tokens=None) if key.startswith("max_")]


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_top_k_is_sent_where_it_is_known(kind: str) -> None:
    expected = 40 if kind in {"mlx-lm", "lmstudio", "llamacpp", "vllm", "openrouter"} else None

    assert sent(profile_of(kind), top_k=40).get("top_k") == expected


def test_a_temperature_of_zero_is_sent() -> None:
    assert sent(PLAIN, temperature=0)["temperature"] == 0


# Tool choice

_NAMED = {"type": "function", "function": {"name": "Bash"}}


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("openai", _NAMED),
        ("vllm", _NAMED),
        ("openrouter", _NAMED),
        ("lmstudio", "required"),
        ("llamacpp", "required"),
    ],
)
def test_a_tool_choice_in_the_words_of_the_server(kind: str, named: Any) -> None:
    def chosen(**choice: Any) -> Any:
        return sent(profile_of(kind), tools=[BASH], tool_choice=choice).get("tool_choice")

    assert chosen(type="auto") is None
    assert chosen(type="any") == "required"
    assert chosen(type="none") == "none"
    assert chosen(type="tool", name="Bash") == named


@pytest.mark.parametrize("kind", ["mlx-lm", "ollama"])
def test_a_server_that_knows_no_tool_choice_gets_none(kind: str) -> None:
    request = sent(profile_of(kind), tools=[BASH], tool_choice={"type": "any", "disable_parallel_tool_use": True})

    assert "tool_choice" not in request
    assert "parallel_tool_calls" not in request


def test_one_call_at_a_time_is_asked_for_only_when_the_client_does() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}

    assert sent(PLAIN, tools=[BASH], tool_choice=choice)["parallel_tool_calls"] is False
    assert "parallel_tool_calls" not in sent(PLAIN, tools=[BASH], tool_choice={"type": "auto"})


def test_without_tools_there_is_nothing_to_choose() -> None:
    request = sent(PLAIN, tool_choice={"type": "any"})

    assert "tool_choice" not in request
    assert "tools" not in request


# Schemas


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("openai", {"$ref": "#/$defs/p"}),
        ("vllm", {"$ref": "#/$defs/p"}),
        ("mlx-lm", {"$ref": "#/$defs/p"}),
        ("openrouter", {"$ref": "#/$defs/p"}),
        ("lmstudio", {"anyOf": [{"type": "string", "format": "uri", "pattern": "a"}, {"type": "null"}]}),
        ("llamacpp", {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ("ollama", {"type": "string", "format": "uri", "pattern": "a"}),
    ],
)
def test_schemas_are_rewritten_for_the_server(kind: str, expected: dict[str, Any]) -> None:
    link = {"anyOf": [{"type": "string", "format": "uri", "pattern": "a"}, {"type": "null"}]}
    schema = {"$schema": "x", "type": "object", "properties": {"format": {"$ref": "#/$defs/p"}}, "$defs": {"p": link}}
    request = sent(profile_of(kind), tools=[BASH | {"input_schema": schema}])

    parameters = request["tools"][0]["function"]["parameters"]

    assert parameters["properties"] == {"format": expected}
    assert "$schema" not in parameters


def test_a_tool_without_a_description_has_an_empty_one() -> None:
    request = sent(PLAIN, tools=[{"name": "a", "input_schema": {}}])

    assert request["tools"][0]["function"] == {"name": "a", "description": "", "parameters": {}}


# Late tools

_ANNOUNCED = [user("hi"), assistant(use()), user(result([{"type": "tool_reference", "tool_name": "Web"}]))]


def test_a_late_tool_is_written_out_where_it_was_announced() -> None:
    request = sent(profile_of("mlx-lm"), tools=[BASH, LATE], messages=_ANNOUNCED)

    assert [tool["function"]["name"] for tool in request["tools"]] == ["Bash"]
    assert json.loads(request["messages"][-1]["content"]) == {
        "type": "function",
        "function": {"name": "Web", "description": "fetches", "parameters": {"type": "object"}},
    }


@pytest.mark.parametrize("kind", [kind for kind in OPENAI_KINDS if kind != "mlx-lm"])
def test_a_late_tool_joins_the_list_of_a_server_that_parses_by_it(kind: str) -> None:
    request = sent(profile_of(kind), tools=[LATE, BASH], messages=_ANNOUNCED)

    assert [tool["function"]["name"] for tool in request["tools"]] == ["Bash", "Web"]
    assert request["messages"][-1]["content"] == "Loaded tool: Web"


def test_a_tool_reference_to_an_unknown_tool_is_named() -> None:
    reference = {"type": "tool_reference", "tool_name": "Gone"}

    assert (
        messages(PLAIN, user("hi"), assistant(use()), user(result([reference])))[-1]["content"] == "Loaded tool: Gone"
    )
    assert messages(PLAIN, user("hi", reference))[-1]["content"] == "hi\nLoaded tool: Gone"


def test_tools_stand_at_the_head_by_name_and_no_tool_twice() -> None:
    reference = [{"type": "tool_reference", "tool_name": "Bash"}]
    turns = [user("hi"), assistant(use()), user(result(reference))]
    request = sent(PLAIN, tools=[LATE, BASH | {"name": "Zip"}, BASH], messages=turns)

    assert [tool["function"]["name"] for tool in request["tools"]] == ["Bash", "Zip"]


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_a_tool_that_joined_unannounced_is_announced_where_it_joined(kind: str) -> None:
    head = Head((Known("Bash", ""),), (Joined("Mcp", "", 2),))
    turns = [user("hi"), assistant("a"), user("b"), assistant("c"), user("d")]
    request = sent(profile_of(kind), head=head, tools=[BASH | {"name": "Mcp"}, BASH], messages=turns)
    expands = kind == "mlx-lm"

    assert [tool["function"]["name"] for tool in request["tools"]] == (["Bash"] if expands else ["Bash", "Mcp"])
    first, *rest = request["messages"][2]["content"].splitlines()
    assert (first, rest[0]) == ("b", "<system-reminder>")
    assert rest[-1] == "</system-reminder>"
    assert rest[2].startswith('{"type":"function","function":{"name":"Mcp"' if expands else "Loaded tool: Mcp")
    assert [turn["content"] for turn in request["messages"][3:]] == ["c", "d"]


# The history


def test_words_arrive_byte_for_byte() -> None:
    words = "\n  first\r\n\tsecond \u00a0\u2028\n\n<system-reminder> 😀\x00 "

    assert messages(PLAIN, user(words))[0]["content"] == words
    assert messages(PLAIN, user("x"), assistant(words))[1]["content"] == words
    assert messages(PLAIN, user("x"), assistant(use()), user(result(words)))[2]["content"] == words
    assert messages(PLAIN, user("x"), system=words)[0]["content"] == words


@settings(max_examples=100, deadline=None)
@given(words=st.text(min_size=1), kind=st.sampled_from(OPENAI_KINDS))
def test_any_words_arrive_byte_for_byte(words: str, kind: str) -> None:
    shown = messages(profile_of(kind), user(words), assistant(words), user(words))

    assert [message["content"] for message in shown] == [words] * 3


@pytest.mark.parametrize("words", ["\n", " ", ""])
def test_a_system_text_of_white_space_is_kept_and_an_empty_one_is_no_message(words: str) -> None:
    roles = [message["role"] for message in messages(PLAIN, user("x"), system=words)]

    assert roles == (["system", "user"] if words else ["user"])


def test_neighbouring_text_blocks_stand_on_lines_of_their_own() -> None:
    assert messages(PLAIN, user("a\n", "b"), assistant("c", "d")) == [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "c\nd"},
    ]


def test_arguments_keep_their_order_and_are_written_compactly() -> None:
    call = messages(PLAIN, user("x"), assistant(use(b=[1, {"z": None}], a="é")))[1]["tool_calls"][0]

    assert call["function"]["arguments"] == '{"b":[1,{"z":null}],"a":"é"}'


def test_a_turn_of_calls_alone_has_empty_words() -> None:
    turn = messages(PLAIN, user("x"), assistant(use("a"), use("b")))[1]

    assert turn["content"] == ""
    assert [call["id"] for call in turn["tool_calls"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("mlx-lm", "reasoning_content"),
        ("lmstudio", "reasoning_content"),
        ("llamacpp", "reasoning_content"),
        ("ollama", "reasoning"),
        ("vllm", "reasoning"),
        ("openrouter", "reasoning"),
        ("openai", None),
    ],
)
def test_earlier_thoughts_go_into_the_field_that_the_server_reads(kind: str, field: str | None) -> None:
    thoughts = [{"type": "thinking", "thinking": words, "signature": ""} for words in ("one\n", "two")]
    turn = messages(profile_of(kind), user("x"), assistant(*thoughts, "a"))[1]

    assert turn == {"role": "assistant", "content": "a"} | ({field: "one\n\ntwo"} if field else {})


def test_thoughts_that_only_the_vendor_can_read_are_left_out() -> None:
    turn = messages(profile_of("vllm"), user("x"), assistant({"type": "redacted_thinking", "data": "c2VjcmV0"}, "a"))[1]

    assert turn == {"role": "assistant", "content": "a"}


def test_an_unknown_block_of_the_assistants_stays_visible() -> None:
    block = {"type": "server_tool_use", "id": "s", "input": {"query": "x"}}

    assert messages(PLAIN, user("x"), assistant(block))[1]["content"] == json.dumps(block, separators=(",", ":"))


# Results and images


@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_images_are_sent_as_parts_or_as_notes(kind: str) -> None:
    content = messages(profile_of(kind), user("see", PICTURE))[0]["content"]

    assert content == (f"see\n{PICTURE_NOTE}" if kind == "mlx-lm" else [text("see"), SHOWN_PICTURE])


def test_an_image_in_a_result_follows_it_in_a_user_turn() -> None:
    turns = messages(PLAIN, user("x"), assistant(use()), user(result([text("a"), PICTURE, text("b")]), "look"))

    assert turns[2:] == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "a\n[image: in the next message]\nb"},
        {"role": "user", "content": [SHOWN_PICTURE, text("look")]},
    ]


def test_an_image_in_a_result_is_a_note_where_images_are_unknown() -> None:
    turns = messages(profile_of("mlx-lm"), user("x"), assistant(use()), user(result([text("a"), PICTURE])))

    assert turns[2:] == [{"role": "tool", "tool_call_id": "toolu_1", "content": f"a\n{PICTURE_NOTE}"}]


@pytest.mark.parametrize("content", [..., "", [], None])
def test_an_empty_result_is_still_a_result(content: Any) -> None:
    turns = messages(PLAIN, user("x"), assistant(use()), user(result(content)))

    assert turns[2] == {"role": "tool", "tool_call_id": "toolu_1", "content": ""}


@pytest.mark.parametrize("words", ["no such file", "<tool_use_error>no such file</tool_use_error>"])
def test_an_error_is_marked_once(words: str) -> None:
    turns = messages(PLAIN, user("x"), assistant(use()), user(result(words, is_error=True)))

    assert turns[2]["content"] == "<tool_use_error>no such file</tool_use_error>"


def test_results_come_right_after_their_calls_whatever_stands_around_them() -> None:
    turns = messages(
        PLAIN,
        user("x"),
        assistant(use("a"), use("b")),
        user("before", result("1", call_id="a"), "between", result("2", call_id="b"), "after"),
    )

    assert [(turn["role"], turn.get("tool_call_id"), turn["content"]) for turn in turns[2:]] == [
        ("tool", "a", "1"),
        ("tool", "b", "2"),
        ("user", None, "before\nbetween\nafter"),
    ]


# What some templates demand


def test_nine_character_ids_stand_on_the_call_and_on_its_result() -> None:
    turns = messages(Profile(policy=Policy(call_ids="nine")), user("x"), assistant(use()), user(result("out")))

    assert turns[1]["tool_calls"][0]["id"] == turns[2]["tool_call_id"] == nine_char_id("toolu_1")


def test_neighbouring_turns_of_one_role_are_merged_where_they_must_alternate() -> None:
    turns = [user("a"), user("b", PICTURE), assistant("c"), assistant(use()), user(result("d"), "e"), user("f")]

    assert messages(ALTERNATING, *turns) == [
        {"role": "user", "content": [text("a"), text("b"), SHOWN_PICTURE]},
        {
            "role": "assistant",
            "content": "c",
            "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "Bash", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "d\ne\nf"},
    ]


def test_thoughts_of_merged_turns_are_kept() -> None:
    thoughts = [assistant({"type": "thinking", "thinking": words}, words) for words in ("one", "two")]

    turn = messages(Profile(policy=Policy(alternates=True), reasoning_field="reasoning"), user("x"), *thoughts)[1]

    assert turn == {"role": "assistant", "content": "one\ntwo", "reasoning": "one\ntwo"}


def test_two_results_are_never_merged() -> None:
    turns = [user("x"), assistant(use("a"), use("b")), user(result("1", call_id="a"), result("2", call_id="b"))]

    assert [turn["content"] for turn in messages(ALTERNATING, *turns)[2:]] == ["1", "2"]


def test_words_after_results_join_the_last_of_them_where_turns_must_alternate() -> None:
    """Mistral's templates allow nothing but the assistant after a result."""
    failed = result("2", call_id="b", is_error=True)
    turns = [user("x"), assistant(use("a"), use("b")), user("before", result("1", call_id="a"), failed, "after")]

    assert [(turn["role"], turn["content"]) for turn in messages(ALTERNATING, *turns)[2:]] == [
        ("tool", "1"),
        ("tool", "<tool_use_error>2</tool_use_error>\nbefore\nafter"),
    ]


def test_images_beside_results_become_notes_where_no_user_turn_may_follow_them() -> None:
    turns = [user("x"), assistant(use()), user(result([text("a"), PICTURE]), PICTURE), assistant("b"), user(PICTURE)]
    note = "[image not shown: image/png, 6 bytes; this model's template takes no image beside a tool's result]"

    assert [(turn["role"], turn["content"]) for turn in messages(ALTERNATING, *turns)[2:]] == [
        ("tool", f"a\n{note}\n{note}"),
        ("assistant", "b"),
        ("user", [SHOWN_PICTURE]),
    ]


def test_one_call_a_turn_is_written_as_successive_pairs() -> None:
    turns = [user("x"), assistant("a", use("1"), use("2")), user(result("r1", call_id="1"), result("r2", call_id="2"))]
    written = messages(Profile(policy=Policy(one_call=True)), *turns)

    calls = [[call["id"] for call in turn.get("tool_calls", [])] for turn in written]
    assert [(turn["role"], turn["content"]) for turn in written] == [
        ("user", "x"),
        ("assistant", "a"),
        ("tool", "r1"),
        ("assistant", ""),
        ("tool", "r2"),
    ]
    assert calls == [[], ["1"], [], ["2"], []]


_OPENED = {"role": "user", "content": "<system-reminder>\nenvironment\n</system-reminder>\nhi"}


@pytest.mark.parametrize(
    ("policy", "written"),
    [
        (Policy(), [{"role": "system", "content": "s\n\nt"}, _OPENED]),
        (
            Policy(preamble="system"),
            [{"role": "system", "content": "s\n\nt\n\nenvironment"}, {"role": "user", "content": "hi"}],
        ),
        (Policy(system="user"), [_OPENED | {"content": "s\nt\n" + _OPENED["content"]}]),
    ],
)
def test_the_preamble_and_the_system_text_stand_where_the_policy_says(
    policy: Policy, written: list[dict[str, Any]]
) -> None:
    """By default the preamble is in the first user turn, behind the tools that templates write into the system turn."""
    environment = {"role": "system", "content": "environment"}

    assert messages(Profile(policy=policy), user("hi"), environment, system=[text("s"), text("t")]) == written


# Output and reasoning

_TITLE = {"type": "object", "properties": {"title": {"type": "string", "format": "uri"}}}


@pytest.mark.parametrize("kind", [kind for kind in OPENAI_KINDS if kind != "mlx-lm"])
def test_a_wanted_schema_is_asked_for(kind: str) -> None:
    request = sent(
        profile_of(kind), output_config={"format": {"type": "json_schema", "schema": {"$schema": "x"} | _TITLE}}
    )
    schema = request["response_format"]["json_schema"].pop("schema")

    assert request["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "strict": True}}
    assert schema["properties"]["title"]["type"] == "string"
    assert "$schema" not in schema
    assert ("format" in schema["properties"]["title"]) == (kind != "llamacpp")


def test_a_server_that_knows_no_schema_output_is_not_asked() -> None:
    assert "response_format" not in sent(
        profile_of("mlx-lm"), output_config={"format": {"type": "json_schema", "schema": _TITLE}}
    )


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("mlx-lm", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("llamacpp", {"chat_template_kwargs": {"enable_thinking": False}, "return_progress": True}),
        ("vllm", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("ollama", {"reasoning_effort": "none"}),
        ("openrouter", {"reasoning": {"enabled": False}}),
        ("lmstudio", {}),
        ("openai", {}),
    ],
)
def test_thinking_is_turned_off_in_the_words_of_the_server(kind: str, fields: dict[str, Any]) -> None:
    off = sent(profile_of(kind), thinking={"type": "disabled"}, output_config={"effort": "high"})

    assert off == sent(profile_of(kind)) | fields


@pytest.mark.parametrize("thinking", [{"type": "adaptive"}, {"type": "enabled", "budget_tokens": 1000}])
@pytest.mark.parametrize("kind", OPENAI_KINDS)
def test_thinking_as_the_client_always_asks_for_it_changes_nothing(kind: str, thinking: dict[str, Any]) -> None:
    assert sent(profile_of(kind), thinking=thinking) == sent(profile_of(kind))


@pytest.mark.parametrize(("effort", "level"), [("low", "low"), ("high", "high"), ("xhigh", "high"), ("max", "high")])
def test_effort_goes_where_the_server_reads_it(effort: str, level: str) -> None:
    config = {"effort": effort}

    assert sent(profile_of("openrouter"), output_config=config)["reasoning"] == {"effort": level}
    assert sent(Profile(effort_field="reasoning_effort"), output_config=config)["reasoning_effort"] == level
    assert sent(PLAIN, output_config=config) == sent(PLAIN)
