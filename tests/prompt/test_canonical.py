"""The steps to the canonical form, one by one. What holds for every conversation is in test_properties."""

from typing import get_args

import pytest

from anyclaude.prompt.canonical import (
    announced,
    canonical,
    fold_system,
    head_tools,
    late_tools,
    lift_preamble,
    reminders_first,
    without_attribution,
)
from anyclaude.prompt.head import Head, Joined, Known
from anyclaude.prompt.lasting import lasting, preamble_first, without_counters, without_own
from anyclaude.prompt.own import own_signature
from anyclaude.prompt.reminders import REMINDER_CLOSE, REMINDER_OPEN, reminder
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    ImageBlock,
    OtherBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
)
from anyclaude.wire.messages import Message, MessagesRequest, Role, Tool

REMINDER = f"{REMINDER_OPEN}\nwhat the project is\n{REMINDER_CLOSE}"
READ = Tool("Read", "reads", {"type": "object"})
BASH = Tool("Bash", "runs", {"type": "object"})
WEB = Tool("Web", "fetches", {"type": "object"}, defer_loading=True)
NOTE = Tool("Note", "notes", {"type": "object"}, defer_loading=True)
SEARCH = Tool("web_search", type="web_search_20250305")
COUNTER = "<total_tokens>198995 tokens left</total_tokens>"
OTHER = OtherBlock("tool_removal", {"type": "tool_removal", "name": "Read"})


def said(role: Role, *blocks: str | Block) -> Message:
    return Message(role, tuple(TextBlock(block) if isinstance(block, str) else block for block in blocks))


def user(*blocks: str | Block) -> Message:
    return said("user", *blocks)


def assistant(*blocks: str | Block) -> Message:
    return said("assistant", *blocks)


def system(*blocks: str | Block) -> Message:
    return said("system", *blocks)


def result(*blocks: Block) -> ToolResultBlock:
    return ToolResultBlock("t", blocks)


def loaded(*names: str) -> Message:
    return user(result(*(ToolReferenceBlock(name) for name in names)))


# What goes


def test_the_attribution_block_is_taken_out_and_nothing_else() -> None:
    block = "x-anthropic-billing-header: cc_version=2.1.330.440; cc_entrypoint=sdk-cli;"

    assert without_attribution((block, "You are", "", f"see {block}")) == ("You are", f"see {block}")


def test_two_sessions_with_other_attributions_have_the_same_prompt() -> None:
    def prompt(suffix: str) -> object:
        attribution = f"x-anthropic-billing-header: cc_version=2.1.330.{suffix};"
        return canonical(MessagesRequest("m", (user("hi"),), system=(attribution, "You are")))

    assert prompt("440") == prompt("636")


@pytest.mark.parametrize(
    "text",
    [
        COUNTER,
        f"{REMINDER_OPEN}\n{COUNTER}\n{REMINDER_CLOSE}\n",
        f"\n{COUNTER} ",
        "<total_tokens></total_tokens>",
    ],
)
def test_a_counter_goes_wherever_the_client_puts_it(text: str) -> None:
    """In a `system` message of its own after each result, as the real client does, or as a block beside others."""
    tail = (assistant("a"), user(result(TextBlock("out"))))

    assert without_counters((user("hi"), *tail, system(text))) == (user("hi"), *tail)
    assert without_counters((user("hi", text), assistant("a"))) == (user("hi"), assistant("a"))
    assert without_counters((user("hi"), system("environment", text))) == (user("hi"), system("environment"))
    assert without_attribution((text, "You are")) == ("You are",)


@pytest.mark.parametrize("text", [f"{COUNTER} is what I saw", f"why {COUNTER}?", "<total_tokens>", ""])
def test_words_beside_a_counter_keep_it_where_it_is(text: str) -> None:
    messages = (user("hi", text), system("environment", text))

    assert without_counters(messages) == messages
    assert without_attribution((text,)) == ((text,) if text else ())


def test_a_counter_that_is_all_a_person_typed_is_kept() -> None:
    assert without_counters((user(COUNTER),)) == (user(COUNTER),)


def test_a_counter_inside_a_result_is_the_tools_own() -> None:
    messages = (user(result(TextBlock(COUNTER))), assistant(COUNTER))

    assert without_counters(messages) == messages


def test_a_tool_loop_with_the_clients_countdown_only_grows() -> None:
    loop = [user("hi"), system("environment"), assistant("a"), loaded(), system("<total_tokens>9</total_tokens>")]
    longer = [*loop, assistant("b"), loaded(), system("<total_tokens>8</total_tokens>")]
    moved = [*loop[:-1], *longer[len(loop) :]]

    short, long, other = (canonical(MessagesRequest("m", tuple(messages))) for messages in (loop, longer, moved))

    assert long.messages[: len(short.messages)] == short.messages
    assert other == long
    assert "total_tokens" not in str(long)


def test_what_anyclaude_itself_said_never_comes_back() -> None:
    own = ThinkingBlock("read 5 of 9", own_signature("read 5 of 9"))
    changed, theirs = ThinkingBlock("read 5", own.signature), ThinkingBlock("hm", "")

    assert without_own((user("hi"), assistant(own, theirs, "a"), assistant(own), assistant(changed))) == (
        user("hi"),
        assistant(theirs, "a"),
        assistant(changed),
    )


# Stable first


def test_the_system_message_after_the_first_user_message_goes_ahead_of_it() -> None:
    messages = lasting((user("hi"), system("environment", "skills"), assistant("a")))

    assert messages == (system("environment", "skills"), user("hi"), assistant("a"))
    assert lift_preamble(messages) == ((user("hi"), assistant("a")), ("environment\nskills",))


def test_a_system_message_at_the_start_goes_there_too() -> None:
    prompt = canonical(MessagesRequest("m", (system("environment"), user("hi"))))

    assert (prompt.preamble, prompt.messages) == (("environment",), (user("hi"),))


def test_a_later_system_message_is_not_lifted() -> None:
    messages = (user("hi"), assistant("a"), system("later"))

    assert preamble_first(messages) == messages
    assert lift_preamble(messages) == (messages, ())


def test_nor_is_one_that_comes_to_stand_there_because_something_went() -> None:
    """Else it would jump ahead of what earlier turns have read."""
    own = ThinkingBlock("read", own_signature("read"))

    prompt = canonical(MessagesRequest("m", (user("hi"), assistant(own), system("later"))))

    assert (prompt.preamble, prompt.messages) == ((), (user("hi"), Message("user", (reminder("later"),))))


def test_what_is_not_text_stays_where_it_stood_when_the_preamble_is_lifted() -> None:
    prompt = canonical(MessagesRequest("m", (user("hi"), system("environment", OTHER), assistant("a"))))

    assert (prompt.preamble, prompt.messages) == (("environment",), (user("hi"), user(OTHER), assistant("a")))


def test_a_new_session_differs_only_from_the_persons_words_on() -> None:
    def prompt(words: str) -> MessagesRequest:
        return MessagesRequest("m", (user(REMINDER, words), system("environment")), system=("You are",))

    first, second = canonical(prompt("one")), canonical(prompt("two"))

    assert (first.system, first.preamble) == (second.system, second.preamble) == (("You are",), ("environment",))
    assert first.messages[0].content[0] == second.messages[0].content[0]
    assert first.messages[0].content[1:] == (TextBlock("one"),)


def test_reminders_of_the_first_message_come_first_in_their_order() -> None:
    ordered = reminders_first((user("words", f"{REMINDER_OPEN}1", "more", f"{REMINDER_OPEN}2"), user("x", REMINDER)))

    assert ordered == (user(f"{REMINDER_OPEN}1", f"{REMINDER_OPEN}2", "words", "more"), user("x", REMINDER))


def test_reminders_come_before_pictures_and_results() -> None:
    picture = ImageBlock(Base64Source("image/png", "AA"))

    (ordered,) = reminders_first((user(picture, REMINDER),))

    assert ordered.content == (TextBlock(REMINDER), picture)


def test_a_reminder_is_known_by_its_beginning_alone() -> None:
    messages = (user("words", f"I saw a {REMINDER_OPEN} here"),)

    assert reminders_first(messages) == messages


def test_a_first_message_of_the_assistants_is_left_alone() -> None:
    assert reminders_first((assistant("a", REMINDER),)) == (assistant("a", REMINDER),)
    assert reminders_first(()) == ()


# Later system messages


def test_a_later_system_message_is_folded_into_the_user_turn_before_it() -> None:
    folded = fold_system((user("hi"), assistant("a"), user("b"), system("changed", OTHER), assistant("c")))

    assert folded == (user("hi"), assistant("a"), user("b", reminder("changed"), OTHER), assistant("c"))


def test_behind_the_first_message_it_is_a_turn_of_its_own() -> None:
    prompt = canonical(MessagesRequest("m", (user("words", REMINDER), system("environment"), system("later"))))

    assert prompt.preamble == ("environment",)
    assert prompt.messages == (user(REMINDER, "words"), user(reminder("later")))


def test_a_system_message_after_the_assistant_becomes_a_user_turn() -> None:
    assert fold_system((assistant("a"), system("one"), system("two"), system())) == (
        assistant("a"),
        user(reminder("one"), reminder("two")),
    )


def test_only_user_and_assistant_are_left() -> None:
    request = MessagesRequest("m", (system("0"), user("hi"), system("1"), assistant("a"), system("2"), user("x")))

    assert {message.role for message in canonical(request).messages} == {"user", "assistant"}


@pytest.mark.parametrize("role", get_args(Role))
def test_a_single_message_of_any_role_is_read(role: Role) -> None:
    assert "words" in str(canonical(MessagesRequest("m", (said(role, "words"),))))


# Tools


def test_deferred_and_server_tools_are_left_out_of_the_head_and_the_rest_is_sorted() -> None:
    assert head_tools((WEB, READ, SEARCH, BASH), None) == (BASH, READ)


def test_tools_that_joined_are_not_at_the_head() -> None:
    head = Head((Known("Bash", ""),), (Joined("Read", "", 3),))

    assert head_tools((READ, BASH), head) == (BASH,)


def test_a_tool_that_joined_is_announced_after_the_message_with_which_it_came() -> None:
    head = Head((Known("Bash", ""),), (Joined("Read", "", 2), Joined("Web", "", 2)))
    request = MessagesRequest(
        "m", (user("1"), assistant("2"), user("3"), assistant("4"), user("5")), tools=(READ, BASH)
    )
    both = (ToolReferenceBlock("Read"), ToolReferenceBlock("Web"))

    assert announced(request.messages, head)[2:4] == (user("3"), Message("system", both))
    prompt = canonical(request, head)
    assert prompt.messages[2:] == (user("3", *both), assistant("4"), user("5"))
    assert (prompt.tools, prompt.late_tools) == ((BASH,), (READ,))


def test_a_tool_that_the_client_announces_itself_is_announced_once() -> None:
    """The decoder reads a `tool_addition` as a reference."""
    head = Head((Known("Bash", ""),), (Joined("Read", "", 3),))
    announcement = system(ToolReferenceBlock("Read"))
    messages = (user("1"), assistant("2"), user("3"), announcement, assistant("4"), loaded("Read"))

    prompt = canonical(MessagesRequest("m", messages, tools=(READ, BASH)), head)

    assert prompt.messages == (user("1"), assistant("2"), user("3", ToolReferenceBlock("Read")), *messages[4:])
    assert (prompt.tools, prompt.late_tools) == ((BASH,), (READ,))


def test_a_place_is_counted_in_messages_that_last() -> None:
    """The client may move its counter: what was announced stays where it was."""
    head = Head((Known("Bash", ""),), (Joined("Read", "", 3),))
    start = (user("1"), system("environment"), assistant("2"), user("3"))
    there = (*start, system(COUNTER), assistant("4"), user("5"))
    gone = (*start, assistant("4"), user("5"), system(COUNTER))

    first, second = (canonical(MessagesRequest("m", each, tools=(READ, BASH)), head) for each in (there, gone))

    assert first == second
    assert first.messages[2] == user("3", ToolReferenceBlock("Read"))


def test_late_tools_come_in_the_order_of_their_announcement_and_once() -> None:
    messages = (loaded("Web", "Gone"), assistant("a"), loaded("Note", "Web", "Read"))

    assert late_tools((NOTE, READ, WEB), (READ,), messages) == (WEB, NOTE)


def test_a_tool_at_the_head_is_not_listed_again_because_somebody_referred_to_it() -> None:
    prompt = canonical(MessagesRequest("m", (user("hi"), assistant("a"), loaded("Read", "Web")), tools=(READ, WEB)))

    assert (prompt.tools, prompt.late_tools) == ((READ,), (WEB,))


def test_a_deferred_tool_that_nobody_announced_is_nowhere() -> None:
    prompt = canonical(MessagesRequest("m", (user("hi"),), tools=(READ, WEB)))

    assert (prompt.tools, prompt.late_tools) == ((READ,), ())


def test_a_server_tool_is_nowhere_even_if_somebody_refers_to_it() -> None:
    prompt = canonical(MessagesRequest("m", (loaded("web_search"),), tools=(SEARCH,)))

    assert (prompt.tools, prompt.late_tools) == ((), ())
