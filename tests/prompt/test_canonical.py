from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.prompt.canonical import (
    REMINDER_CLOSE,
    REMINDER_OPEN,
    canonical,
    fold_system,
    late_tools,
    lift_preamble,
    listed_tools,
    reminders_first,
    without_attribution,
)
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Message, MessagesRequest, Role, Tool

REMINDER = f"{REMINDER_OPEN}\nwhat the project is\n{REMINDER_CLOSE}"
READ = Tool("Read", "reads", {"type": "object"})
WEB = Tool("Web", "fetches", {"type": "object"}, defer_loading=True)
NOTE = Tool("Note", "notes", {"type": "object"}, defer_loading=True)
SEARCH = Tool("web_search", type="web_search_20250305")


def user(*texts: str) -> Message:
    return Message("user", tuple(TextBlock(text) for text in texts))


def assistant(*texts: str) -> Message:
    return Message("assistant", tuple(TextBlock(text) for text in texts))


def system(*texts: str) -> Message:
    return Message("system", tuple(TextBlock(text) for text in texts))


def reminded(text: str) -> TextBlock:
    return TextBlock(f"{REMINDER_OPEN}\n{text}\n{REMINDER_CLOSE}")


def announced(*names: str) -> Message:
    return Message("user", (ToolResultBlock("t", tuple(ToolReferenceBlock(name) for name in names)),))


def test_the_attribution_block_is_taken_out_and_nothing_else() -> None:
    block = "x-anthropic-billing-header: cc_version=2.1.330.440; cc_entrypoint=sdk-cli;"

    assert without_attribution((block, "You are", f"see {block}")) == ("You are", f"see {block}")


def test_two_sessions_with_other_attributions_have_the_same_prompt() -> None:
    def prompt(suffix: str) -> object:
        attribution = f"x-anthropic-billing-header: cc_version=2.1.330.{suffix};"
        return canonical(MessagesRequest("m", (user("hi"),), system=(attribution, "You are")))

    assert prompt("440") == prompt("636")


def test_the_system_message_after_the_first_user_message_goes_ahead_of_it() -> None:
    messages, preamble = lift_preamble((user("hi"), system("environment", "skills"), assistant("a")))

    assert preamble == ("environment\nskills",)
    assert messages == (user("hi"), assistant("a"))


def test_a_system_message_at_the_start_goes_there_too() -> None:
    assert lift_preamble((system("environment"), user("hi"))) == ((user("hi"),), ("environment",))


def test_a_later_system_message_is_not_lifted() -> None:
    messages = (user("hi"), assistant("a"), system("later"))

    assert lift_preamble(messages) == (messages, ())


def test_a_new_session_differs_only_from_the_persons_words_on() -> None:
    def prompt(words: str) -> MessagesRequest:
        return MessagesRequest("m", (user(REMINDER, words), system("environment")), system=("You are",))

    first, second = canonical(prompt("one")), canonical(prompt("two"))

    assert first.system == second.system == ("You are", "environment")
    assert first.messages[0].content[0] == second.messages[0].content[0]
    assert first.messages[0].content[1:] == (TextBlock("one"),)


def test_reminders_of_the_first_message_come_first_in_their_order() -> None:
    ordered = reminders_first((user("words", f"{REMINDER_OPEN}1", "more", f"{REMINDER_OPEN}2"), user("x", REMINDER)))

    assert ordered == (user(f"{REMINDER_OPEN}1", f"{REMINDER_OPEN}2", "words", "more"), user("x", REMINDER))


def test_reminders_come_before_pictures_and_results() -> None:
    picture = ImageBlock(Base64Source("image/png", "AA"))

    (ordered,) = reminders_first((Message("user", (picture, TextBlock(REMINDER))),))

    assert ordered.content == (TextBlock(REMINDER), picture)


def test_a_later_system_message_stays_behind_the_first_words() -> None:
    prompt = canonical(MessagesRequest("m", (user("words", REMINDER), system("environment"), system("later"))))

    assert prompt.messages == (Message("user", (TextBlock(REMINDER), TextBlock("words"), reminded("later"))),)


def test_a_reminder_is_known_by_its_beginning_alone() -> None:
    messages = (user("words", f"I saw a {REMINDER_OPEN} here"),)

    assert reminders_first(messages) == messages


def test_a_first_message_of_the_assistants_is_left_alone() -> None:
    assert reminders_first((assistant("a", REMINDER),)) == (assistant("a", REMINDER),)
    assert reminders_first(()) == ()


def test_a_later_system_message_is_folded_into_the_user_turn_before_it() -> None:
    folded = fold_system((user("hi"), system("changed"), assistant("a")))

    assert folded == (Message("user", (TextBlock("hi"), reminded("changed"))), assistant("a"))


def test_a_system_message_after_the_assistant_becomes_a_user_turn() -> None:
    assert fold_system((assistant("a"), system("one"), system("two"))) == (
        assistant("a"),
        Message("user", (reminded("one"), reminded("two"))),
    )


def test_only_user_and_assistant_are_left() -> None:
    request = MessagesRequest("m", (system("0"), user("hi"), system("1"), assistant("a"), system("2"), user("x")))

    assert {message.role for message in canonical(request).messages} == {"user", "assistant"}


def test_deferred_and_server_tools_are_left_out_of_the_head_in_the_clients_order() -> None:
    assert listed_tools((WEB, READ, SEARCH, Tool("Bash", "", {}))) == (READ, Tool("Bash", "", {}))


def test_late_tools_come_in_the_order_of_their_announcement_and_once() -> None:
    messages = (announced("Web", "Gone"), assistant("a"), announced("Note", "Web", "Read"))

    assert late_tools((NOTE, READ, WEB), messages) == (WEB, NOTE)


def test_a_deferred_tool_that_nobody_announced_is_nowhere() -> None:
    prompt = canonical(MessagesRequest("m", (user("hi"),), tools=(READ, WEB)))

    assert (prompt.tools, prompt.late_tools) == ((READ,), ())


def test_announcing_a_tool_never_changes_the_head() -> None:
    before = MessagesRequest("m", (user("hi"),), tools=(READ, WEB))
    after = MessagesRequest("m", (user("hi"), assistant("a"), announced("Web")), tools=(READ, WEB))

    assert canonical(before).tools == canonical(after).tools
    assert canonical(after).late_tools == (WEB,)


_TEXT = st.sampled_from(["words", " a\n\tb ", REMINDER, f"{REMINDER_OPEN}x", "", "\r\n", "😀"]) | st.text(max_size=6)
_BLOCK: st.SearchStrategy[Block] = st.one_of(
    st.builds(TextBlock, _TEXT),
    st.builds(ThinkingBlock, _TEXT),
    st.just(ToolUseBlock("t", "Read", {"a": 1})),
    st.just(ToolResultBlock("t", (TextBlock("out"), ToolReferenceBlock("Web")))),
)
_MESSAGE = st.one_of(
    st.builds(Message, st.just("user"), st.lists(_BLOCK, max_size=4).map(tuple)),
    st.builds(Message, st.just("assistant"), st.lists(_BLOCK, max_size=3).map(tuple)),
    st.builds(Message, st.just("system"), st.lists(st.builds(TextBlock, _TEXT), max_size=2).map(tuple)),
)
_CONVERSATION = st.lists(_MESSAGE, min_size=1, max_size=8).map(tuple)


def _request(messages: tuple[Message, ...]) -> MessagesRequest:
    return MessagesRequest("m", messages, system=("You are",), tools=(READ, WEB))


@settings(max_examples=150, deadline=None)
@given(messages=_CONVERSATION)
def test_appending_messages_never_changes_what_came_before(messages: tuple[Message, ...]) -> None:
    """Once the preamble has come. A system message joins the user turn before it, which then only grows."""
    whole = canonical(_request(messages))
    for n in range(2, len(messages)):
        part = canonical(_request(messages[:n]))

        assert (part.system, part.tools) == (whole.system, whole.tools)
        assert whole.late_tools[: len(part.late_tools)] == part.late_tools
        *earlier, last = part.messages or (Message("user", ()),)
        assert list(whole.messages[: len(earlier)]) == earlier
        if part.messages:
            grown = whole.messages[len(earlier)]
            assert grown.role == last.role
            assert grown.content[: len(last.content)] == last.content
            assert grown == last or messages[n].role == "system"


@settings(max_examples=100, deadline=None)
@given(messages=_CONVERSATION)
def test_no_block_is_lost_or_edited(messages: tuple[Message, ...]) -> None:
    prompt = canonical(_request(messages))

    said = [block for message in messages if message.role != "system" for block in message.content]
    left = [block for message in prompt.messages for block in message.content]
    for block in said:
        left.remove(block)
    told = [message for message in messages if message.role == "system"]
    assert len(left) + len(prompt.system) - 1 == len(told)
    words = "".join([*prompt.system, *(block.text for block in left if isinstance(block, TextBlock))])
    assert all(block.text in words for message in told for block in message.content if isinstance(block, TextBlock))


@settings(max_examples=100, deadline=None)
@given(messages=_CONVERSATION)
def test_without_system_messages_a_canonical_conversation_stays_as_it_is(messages: tuple[Message, ...]) -> None:
    once = canonical(_request(tuple(message for message in messages if message.role != "system")))

    assert canonical(_request(once.messages)) == once


@pytest.mark.parametrize("role", get_args(Role))
def test_a_single_message_of_any_role_is_read(role: Role) -> None:
    prompt = canonical(MessagesRequest("m", (Message(role, (TextBlock("words"),)),)))

    assert "words" in str(prompt)
