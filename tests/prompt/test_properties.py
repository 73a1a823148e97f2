"""What holds for every conversation: the prompt loses nothing, reads one way only, and only grows."""

import itertools
from collections import Counter

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from anyclaude.prompt.canonical import ATTRIBUTION, Prompt, canonical
from anyclaude.prompt.explain import difference, n_equal
from anyclaude.prompt.head import Head, Joined, Known, head_for, remembered
from anyclaude.prompt.lasting import is_counter, lasting
from anyclaude.prompt.own import is_own, own_signature
from anyclaude.prompt.policy import Policy, fitted
from anyclaude.prompt.reminders import REMINDER_CLOSE, REMINDER_OPEN
from anyclaude.prompt.sections import Section, rows_of, sections_of
from anyclaude.telemetry.sections import SectionRow
from anyclaude.wire.blocks import (
    Block,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Message, MessagesRequest, Tool
from tests.prompt.conversations import WORD, Conversation, as_request, conversations, counter, flat, policies

HEADS = st.lists(st.tuples(st.sampled_from(("Note", "Read")), st.integers(0, 8)), max_size=2).map(
    lambda joined: Head((Known("Bash", "d"),), tuple(Joined(name, "d", n) for name, n in joined))
)
TOOLS = (
    Tool("Bash", "runs", {"type": "object"}),
    Tool("Note", "notes", {"type": "object"}),
    Tool("Read", "reads", {"type": "object"}),
    Tool("Web", "fetches", {"type": "object"}, defer_loading=True),
)

_TEXT = st.sampled_from(["words", " a\n\tb ", f"{REMINDER_OPEN}x{REMINDER_CLOSE}", "", "😀"]) | st.text(max_size=6)
_TEXTS = st.builds(TextBlock, _TEXT)
_COUNTERS = st.builds(TextBlock, st.integers(0, 9).map(counter))
_REFERENCES = st.builds(ToolReferenceBlock, st.sampled_from(("Web", "Read", "Gone")))
_OWN = _TEXT.map(lambda text: ThinkingBlock(text, own_signature(text)))
_BLOCKS: st.SearchStrategy[Block] = st.one_of(
    _TEXTS,
    _OWN,
    _REFERENCES,
    st.builds(ThinkingBlock, _TEXT),
    st.just(ToolUseBlock("t", "Read", {"a": 1})),
    _REFERENCES.map(lambda inner: ToolResultBlock("t", (TextBlock("out"), inner))),
)
_SYSTEM_BLOCKS: st.SearchStrategy[Block] = st.one_of(_TEXTS, _TEXTS, _COUNTERS, _REFERENCES)
MESSAGES = st.one_of(
    st.builds(Message, st.just("user"), st.lists(_BLOCKS, max_size=4).map(tuple)),
    st.builds(Message, st.just("assistant"), st.lists(_BLOCKS, max_size=3).map(tuple)),
    st.builds(Message, st.just("system"), st.lists(_SYSTEM_BLOCKS, max_size=3).map(tuple)),
)
ANY_MESSAGES = st.lists(MESSAGES, min_size=1, max_size=8).map(tuple)


def rows(prompt: Prompt) -> tuple[SectionRow, ...]:
    return rows_of(sections_of(prompt))


def asked(messages: tuple[Message, ...]) -> MessagesRequest:
    return MessagesRequest("m", messages, system=("You are",), tools=TOOLS)


# One way only


@settings(max_examples=150, deadline=None)
@given(conversation=conversations())
def test_the_canonical_form_of_a_canonical_prompt_is_itself(conversation: Conversation) -> None:
    for prompt in conversation.prompts:
        assert rows(canonical(as_request(prompt))) == rows(prompt)


@settings(max_examples=300, deadline=None)
@given(messages=ANY_MESSAGES, head=st.none() | HEADS)
def test_and_so_it_is_whatever_a_client_sends(messages: tuple[Message, ...], head: Head | None) -> None:
    prompt = canonical(asked(messages), head)

    assert rows(canonical(as_request(prompt))) == rows(prompt)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(at_most=2), data=st.data())
def test_the_order_of_the_tools_changes_nothing(conversation: Conversation, data: st.DataObject) -> None:
    for request, head in zip(conversation.requests, conversation.heads, strict=True):
        shuffled = replace(request, tools=tuple(data.draw(st.permutations(request.tools))))

        assert canonical(shuffled, head) == canonical(request, head)


# Nothing is lost


def words_sent(request: MessagesRequest) -> Counter[str]:
    """Of every block that is not a counter's or ours."""
    kept = [block for message in request.messages for block in message.content if not is_own(block)]
    texts = [str(block) for block in kept if not is_counter(block)]
    texts += [text for text in request.system if not text.startswith(ATTRIBUTION)]
    return Counter(word for text in texts for word in WORD.findall(text))


def words_in(sections: tuple[Section, ...]) -> Counter[str]:
    return Counter(word for section in sections for word in WORD.findall(section.text))


@settings(max_examples=150, deadline=None)
@given(conversation=conversations())
def test_every_word_is_in_one_section_and_no_other_words_are(conversation: Conversation) -> None:
    for request, prompt in zip(conversation.requests, conversation.prompts, strict=True):
        found = words_in(sections_of(prompt))

        assert found == words_sent(request)
        assert not found or max(found.values()) == 1


@settings(max_examples=100, deadline=None)
@given(conversation=conversations())
def test_every_tool_that_can_be_called_is_written_out_in_some_place(conversation: Conversation) -> None:
    for request, prompt in zip(conversation.requests, conversation.prompts, strict=True):
        listed = {tool.name for tool in request.tools if not tool.defer_loading and not tool.is_server_tool}
        loaded = {
            inner.tool_name
            for _, block in flat(request.messages)
            for inner in (block.content if isinstance(block, ToolResultBlock) else (block,))
            if isinstance(inner, ToolReferenceBlock)
        }
        for lists_late_tools in (False, True):
            texts = "\n".join(section.text for section in sections_of(prompt, lists_late_tools=lists_late_tools))
            assert {
                name for name in ("Bash", "Read", "Aaa", "Mcp", "Zzz", "Api", "Web") if f"does {name}" in texts
            } == (listed | loaded)


@settings(max_examples=200, deadline=None)
@given(messages=ANY_MESSAGES, head=HEADS)
def test_no_block_is_lost_or_edited_whatever_a_client_sends(messages: tuple[Message, ...], head: Head) -> None:
    prompt = canonical(asked(messages), head)

    left = [block for _, block in flat(prompt.messages)]
    for message in lasting(messages):
        for block in message.content:
            if message.role != "system" or not isinstance(block, TextBlock):
                left.remove(block)
    told = [message for message in lasting(messages) if message.role == "system"]
    texts = "\n".join([*prompt.preamble, *(block.text for block in left if isinstance(block, TextBlock))])
    assert all(block.text in texts for message in told for block in message.content if isinstance(block, TextBlock))
    announced = [block for block in left if not isinstance(block, TextBlock)]
    assert all(isinstance(block, ToolReferenceBlock) for block in announced)
    assert len(announced) <= len(head.joined)


# It only grows


@settings(max_examples=200, deadline=None)
@given(conversation=conversations())
def test_each_turn_begins_with_the_one_before(conversation: Conversation) -> None:
    """Whatever loads, joins, is counted down or was put in between by us."""
    for earlier, later in itertools.pairwise(rows(prompt) for prompt in conversation.prompts):
        assert n_equal(earlier, later) == len(earlier)
        assert difference(earlier, later) is None


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(at_most=3), at=st.integers(0, 3))
def test_a_restart_of_the_server_changes_nothing(conversation: Conversation, at: int) -> None:
    known: tuple[Head, ...] = ()
    for n, request in enumerate(conversation.requests):
        if n == at:
            known = msgspec.json.decode(msgspec.json.encode(known), type=tuple[Head, ...])
        head = head_for(known, request)
        known = remembered(known, head)
        assert canonical(request, head) == conversation.prompts[n]


@settings(max_examples=100, deadline=None)
@given(conversation=conversations())
def test_without_a_head_only_tools_that_are_listed_later_change_the_prompt(conversation: Conversation) -> None:
    """The converse: the head is what makes the difference, and nothing else needs it."""
    first, last = conversation.requests[0], conversation.requests[-1]
    earlier, later = rows(canonical(first)), rows(canonical(last))

    assert (difference(earlier, later) is None) == (conversation.n_joined == 0)


@settings(max_examples=150, deadline=None)
@given(conversation=conversations())
def test_what_is_appended_never_changes_what_a_message_becomes(conversation: Conversation) -> None:
    """Given the head, the prompt is a function of the request's prefix alone, wherever it is cut."""
    request, head = conversation.requests[-1], conversation.heads[-1]
    whole = rows(canonical(request, head))
    for k in range(2, len(request.messages)):
        part = rows(canonical(replace(request, messages=request.messages[:k]), head))

        assert n_equal(part, whole) == len(part)


@settings(max_examples=300, deadline=None)
@given(messages=ANY_MESSAGES, head=st.none() | HEADS)
def test_nor_does_it_whatever_a_client_sends(messages: tuple[Message, ...], head: Head | None) -> None:
    """From the second message on, with which the description of the project comes."""
    whole = rows(canonical(asked(messages), head))
    for k in range(2, len(messages)):
        part = rows(canonical(asked(messages[:k]), head))

        assert n_equal(part, whole) == len(part)


# Fitted to a template


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_a_fitted_prompt_has_every_word_once(conversation: Conversation, policy: Policy) -> None:
    for request, prompt in zip(conversation.requests, conversation.prompts, strict=True):
        assert words_in(sections_of(fitted(prompt, policy))) == words_sent(request)


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_a_fitted_prompt_has_what_the_policy_says(conversation: Conversation, policy: Policy) -> None:
    for prompt in conversation.prompts:
        one = fitted(prompt, policy)
        calls = [[block for block in message.content if isinstance(block, ToolUseBlock)] for message in one.messages]

        assert one.preamble == ()
        assert policy.system == "head" or one.system == ()
        if policy.alternates:
            assert all(first.role != second.role for first, second in itertools.pairwise(one.messages))
        if policy.one_call:
            assert all(len(found) <= 1 for found in calls)
        if policy.call_ids == "nine":
            assert all(len(call.id) == 9 and call.id.isalnum() for found in calls for call in found)


@settings(max_examples=150, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_every_call_is_answered_in_the_turn_after_it(conversation: Conversation, policy: Policy) -> None:
    for prompt in conversation.prompts:
        messages = fitted(prompt, policy).messages
        for n, message in enumerate(messages):
            called = [block.id for block in message.content if isinstance(block, ToolUseBlock)]
            if called:
                answers = [block for block in messages[n + 1].content if isinstance(block, ToolResultBlock)]
                assert [answer.tool_use_id for answer in answers] == called
        wanted = sum(isinstance(block, ToolUseBlock) for _, block in flat(prompt.messages))
        assert sum(isinstance(block, ToolUseBlock) for _, block in flat(messages)) == wanted


@settings(max_examples=200, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_what_it_is_fitted_to_only_grows_too(conversation: Conversation, policy: Policy) -> None:
    """Block after block: the last turn may still grow, but only at its end."""
    for earlier, later in itertools.pairwise(fitted(prompt, policy) for prompt in conversation.prompts):
        assert (later.tools, later.system) == (earlier.tools, earlier.system)
        assert flat(later.messages)[: len(flat(earlier.messages))] == flat(earlier.messages)


@settings(max_examples=100, deadline=None)
@given(conversation=conversations(), policy=policies())
def test_fitting_twice_is_fitting_once(conversation: Conversation, policy: Policy) -> None:
    for prompt in conversation.prompts:
        once = fitted(prompt, policy)

        assert fitted(once, policy) == once
