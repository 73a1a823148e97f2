"""What each rule of a policy does to a prompt, one by one. What holds for every conversation is in test_properties."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.policy import Policy, client_call_id, fitted, nine_char_id
from anyclaude.prompt.reminders import reminder
from anyclaude.wire.blocks import Block, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock
from anyclaude.wire.messages import Message

NINE = st.from_regex(r"[A-Za-z0-9]{9}", fullmatch=True)
UNIQUE = st.from_regex(r"[0-9a-f]{24}", fullmatch=True)


def user(*blocks: str | Block) -> Message:
    return Message("user", tuple(TextBlock(block) if isinstance(block, str) else block for block in blocks))


def assistant(*blocks: str | Block) -> Message:
    return Message("assistant", user(*blocks).content)


def call(call_id: str) -> ToolUseBlock:
    return ToolUseBlock(call_id, "Bash", {"of": call_id})


def answer(call_id: str) -> ToolResultBlock:
    return ToolResultBlock(call_id, (TextBlock(f"of {call_id}"),))


HI = user(reminder("project"), "hi")
PROMPT = Prompt(system=("You are", "careful"), preamble=("environment",), messages=(HI, assistant("a")))


def messages_of(policy: Policy, *messages: Message) -> tuple[Message, ...]:
    return fitted(Prompt(messages=messages), policy).messages


# Where the head's words go


def test_the_preamble_opens_the_first_user_turn_as_a_reminder() -> None:
    one = fitted(PROMPT, Policy())

    assert (one.system, one.preamble) == (("You are", "careful"), ())
    assert one.messages == (user(reminder("environment"), *HI.content), assistant("a"))


def test_the_preamble_follows_the_system_text_where_the_policy_says_so() -> None:
    one = fitted(PROMPT, Policy(preamble="system"))

    assert (one.system, one.messages) == (("You are", "careful", "environment"), PROMPT.messages)


@pytest.mark.parametrize(
    ("preamble", "words"), [("user", reminder("environment")), ("system", TextBlock("environment"))]
)
def test_without_a_system_turn_its_words_open_the_first_user_turn(preamble: str, words: TextBlock) -> None:
    one = fitted(PROMPT, Policy(system="user", preamble="user" if preamble == "user" else "system"))

    assert (one.system, one.preamble) == ((), ())
    assert one.messages == (user("You are", "careful", words, *HI.content), assistant("a"))


@pytest.mark.parametrize("messages", [(), (assistant("a"),)])
def test_where_no_user_turn_begins_the_words_are_one(messages: tuple[Message, ...]) -> None:
    one = fitted(Prompt(preamble=("environment",), messages=messages), Policy())

    assert one.messages == (user(reminder("environment")), *messages)


def test_a_prompt_without_head_stays_as_it_is() -> None:
    assert messages_of(Policy(system="user"), assistant("a"), user("b")) == (assistant("a"), user("b"))


# Turns


def test_neighbouring_turns_of_one_role_are_merged_where_they_must_alternate() -> None:
    turns = (
        user("a"),
        user("b"),
        assistant(ThinkingBlock("hm"), "c"),
        assistant(call("1")),
        user(answer("1")),
        user("d"),
    )

    assert messages_of(Policy(alternates=True), *turns) == (
        user("a", "b"),
        assistant(ThinkingBlock("hm"), "c", call("1")),
        user(answer("1"), "d"),
    )
    assert messages_of(Policy(), *turns) == turns


def test_parallel_calls_become_successive_pairs() -> None:
    turns = (
        user("hi"),
        assistant(ThinkingBlock("hm"), "Two.", call("1"), "and", call("2"), call("3")),
        user("before", answer("3"), answer("1"), "between", answer("2"), "after"),
        assistant("done"),
    )

    assert messages_of(Policy(one_call=True), *turns) == (
        user("hi"),
        assistant(ThinkingBlock("hm"), "Two.", call("1"), "and"),
        user(answer("1")),
        assistant(call("2")),
        user(answer("2")),
        assistant(call("3")),
        user(answer("3"), "before", "between", "after"),
        assistant("done"),
    )


def test_a_single_call_and_its_result_stay_as_they_are() -> None:
    turns = (user("hi"), assistant("a", call("1")), user(answer("1"), "b"), assistant("c"))

    assert messages_of(Policy(one_call=True, alternates=True), *turns) == turns


@pytest.mark.parametrize("after", [(), (assistant("again"),), (user("never mind"),), (user(answer("2")),)])
def test_calls_that_nobody_answered_are_kept_one_a_turn(after: tuple[Message, ...]) -> None:
    one = messages_of(Policy(one_call=True), user("hi"), assistant(call("1"), call("2")), *after)

    assert one == (user("hi"), assistant(call("1")), assistant(call("2")), *after)


# Ids


def test_a_call_and_its_result_get_the_same_nine_characters() -> None:
    _, turn, result = messages_of(
        Policy(call_ids="nine"), user("x"), assistant(call("toolu_01")), user(answer("toolu_01"))
    )

    assert turn == assistant(ToolUseBlock(nine_char_id("toolu_01"), "Bash", {"of": "toolu_01"}))
    assert result == user(ToolResultBlock(nine_char_id("toolu_01"), (TextBlock("of toolu_01"),)))


@settings(max_examples=200, deadline=None)
@given(unique=UNIQUE, server_id=NINE)
def test_a_servers_own_id_of_nine_comes_back_to_it(unique: str, server_id: str) -> None:
    ours = client_call_id(unique, server_id)

    assert nine_char_id(ours) == server_id
    assert nine_char_id(server_id) == server_id
    assert ours != client_call_id("f" * 24 if unique[:12] != "f" * 12 else "0" * 24, server_id)


@settings(max_examples=200, deadline=None)
@given(unique=UNIQUE, server_id=st.none() | st.text(max_size=12) | st.just("call_00000"))
def test_every_other_id_is_mapped_to_nine_characters_always_the_same(unique: str, server_id: str | None) -> None:
    ours = client_call_id(unique, server_id)
    nine = nine_char_id(ours)

    assert ours.startswith("toolu_")
    assert ours.replace("_", "").isalnum()
    assert len(nine) == 9
    assert nine.isascii()
    assert nine.isalnum()
    assert nine == nine_char_id(ours)
    assert nine_char_id(nine) == nine


def test_ids_that_differ_stay_different() -> None:
    ids = [f"toolu_{n:024x}" for n in range(2000)]

    assert len({nine_char_id(each) for each in ids}) == len(ids)


@pytest.mark.parametrize("foreign", ["", "toolu_01", "call_AbCdEf123", "toolu_0123456789ab_AbCdEf12", "é" * 9])
def test_an_id_of_another_form_is_mapped_too(foreign: str) -> None:
    assert len(nine_char_id(foreign)) == 9
    assert nine_char_id(foreign) != foreign
