"""Which tools stand at the head, request after request."""

import pytest

from anyclaude.prompt.head import KEPT, Head, Joined, Known, head_for, origin, remembered, tool_digest
from anyclaude.prompt.own import own_signature
from anyclaude.wire.blocks import TextBlock, ThinkingBlock
from anyclaude.wire.messages import Message, MessagesRequest, Role, Tool

BASH, READ, MCP, ZIP = (Tool(name, f"does {name}", {"type": "object"}) for name in ("Bash", "Read", "Mcp", "Zip"))


def request(*tools: Tool, n: int = 3) -> MessagesRequest:
    roles: tuple[Role, ...] = ("user", "assistant")
    return MessagesRequest("m", tuple(Message(roles[k % 2], (TextBlock(f"{k}"),)) for k in range(n)), tools=tools)


def known(*tools: Tool) -> tuple[Known, ...]:
    return tuple(Known(tool.name, tool_digest(tool)) for tool in tools)


def joined(tool: Tool, message: int) -> Joined:
    return Joined(tool.name, tool_digest(tool), message)


def learned(*requests: MessagesRequest) -> tuple[Head, ...]:
    heads: tuple[Head, ...] = ()
    for each in requests:
        heads = remembered(heads, head_for(heads, each))
    return heads


def test_a_first_request_begins_with_all_its_tools_by_name() -> None:
    assert head_for((), request(READ, BASH, n=1)) == Head(known(BASH, READ))


def test_deferred_and_server_tools_belong_to_no_head() -> None:
    deferred, remote = Tool("Web", "", {}, defer_loading=True), Tool("search", type="web_search_20250305")

    assert head_for((), request(READ, deferred, remote)) == Head(known(READ))


def test_the_order_in_which_the_client_lists_them_makes_no_other_head() -> None:
    heads = learned(request(READ, BASH))

    assert head_for(heads, request(BASH, READ, n=5)) == heads[0]


def test_a_tool_that_joins_in_mid_conversation_leaves_the_head_as_it_is() -> None:
    heads = learned(request(BASH, READ, n=1), request(READ, MCP, BASH, n=3), request(MCP, BASH, READ, n=5))

    assert heads == (Head(known(BASH, READ), (joined(MCP, 2),)),)


def test_more_tools_join_later_each_in_its_own_place() -> None:
    heads = learned(request(BASH, n=1), request(BASH, ZIP, READ, n=3), request(BASH, ZIP, READ, MCP, n=7))

    assert heads == (Head(known(BASH), (joined(READ, 2), joined(ZIP, 2), joined(MCP, 6))),)


def test_before_the_model_has_answered_nothing_joins() -> None:
    """Nothing was read yet that would be worth keeping."""
    heads = learned(request(BASH, n=1))

    assert head_for(heads, request(BASH, READ, n=1)) == Head(known(BASH, READ))


@pytest.mark.parametrize(
    "tools",
    [(BASH,), (BASH, Tool("Read", "reads otherwise", {"type": "object"})), (BASH, Tool("Read", "does Read", {}))],
)
def test_a_changed_or_removed_tool_starts_a_new_head(tools: tuple[Tool, ...]) -> None:
    heads = learned(request(BASH, READ), request(BASH, READ, MCP, n=5))

    assert head_for(heads, request(*tools, MCP, n=7)) == Head(known(*sorted((*tools, MCP), key=lambda tool: tool.name)))


def test_when_the_client_goes_back_to_earlier_tools_their_head_is_still_known() -> None:
    heads = learned(request(BASH, READ), request(BASH, READ, MCP, n=5), request(BASH, n=5))

    assert head_for(heads, request(MCP, READ, BASH, n=7)) == Head(known(BASH, READ), (joined(MCP, 4),))


def test_newcomers_join_the_head_that_has_most_of_the_tools() -> None:
    heads = learned(request(BASH, READ), request(BASH))

    assert head_for(heads, request(BASH, READ, MCP, n=7)) == Head(known(BASH, READ), (joined(MCP, 6),))


def test_a_head_takes_the_place_of_the_one_it_grew_from() -> None:
    assert len(learned(request(BASH), request(BASH, READ, n=5), request(BASH, READ, MCP, n=7))) == 1


def test_only_the_newest_heads_are_kept() -> None:
    tools = [Tool(f"T{n}", "", {}) for n in range(KEPT + 2)]

    heads = learned(*(request(tool) for tool in tools))

    assert heads == tuple(Head(known(tool)) for tool in reversed(tools[2:]))


def test_when_the_history_gets_shorter_announcements_go_to_its_end() -> None:
    heads = learned(request(BASH, n=1), request(BASH, READ, n=3), request(BASH, READ, MCP, n=9))

    assert head_for(heads, request(BASH, READ, MCP, n=5)).joined == (joined(READ, 2), joined(MCP, 4))
    assert head_for(heads, request(BASH, READ, MCP, n=1)).joined == (joined(READ, 0), joined(MCP, 0))


def test_a_place_is_counted_without_what_does_not_last() -> None:
    own = Message("assistant", (ThinkingBlock("read", own_signature("read")),))
    counter = Message("system", (TextBlock("<total_tokens>9 tokens left</total_tokens>"),))
    first, answer, last = request(n=3).messages
    heads = learned(request(BASH, n=1))
    one = MessagesRequest("m", (first, own, answer, counter, last, counter), tools=(BASH, READ))

    assert head_for(heads, one).joined == (joined(READ, 2),)
    nothing = MessagesRequest("m", (own,), tools=(BASH, READ))
    assert head_for(heads, nothing).joined == (joined(READ, 0),)


def test_a_head_holds_names_and_digests_but_no_text() -> None:
    assert "does Bash" not in str(learned(request(BASH), request(BASH, READ, n=5)))


def test_a_conversation_is_named_by_its_first_message() -> None:
    assert origin(request(n=1).messages) == origin(request(n=7).messages)
    assert origin((Message("user", (TextBlock("other"),)),)) != origin(request().messages)
