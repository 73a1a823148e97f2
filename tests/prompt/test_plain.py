from anyclaude.prompt.own import own_signature
from anyclaude.prompt.plain import plain
from anyclaude.prompt.sections import sections_of
from anyclaude.wire.blocks import TextBlock, ThinkingBlock, ToolReferenceBlock, ToolResultBlock
from anyclaude.wire.messages import Message, MessagesRequest, Tool

READ, BASH = Tool("Read", "reads", {}), Tool("Bash", "runs", {})
WEB, SEARCH = Tool("Web", "fetches", {}, defer_loading=True), Tool("web_search", type="web_search_20250305")
SYSTEM = ("x-anthropic-billing-header: cc_version=2.1.330.440;", "You are")
MESSAGES = (
    Message("user", (TextBlock("words"), TextBlock("<system-reminder>project</system-reminder>"))),
    Message("system", (TextBlock("environment"),)),
    Message("assistant", (ThinkingBlock("hm", "s"), TextBlock("a"))),
    Message("system", (TextBlock("<total_tokens>5</total_tokens>"),)),
)


def test_everything_stays_where_the_client_put_it() -> None:
    prompt = plain(MessagesRequest("m", MESSAGES, system=SYSTEM, tools=(READ, SEARCH, WEB, BASH)))

    assert (prompt.tools, prompt.system, prompt.preamble, prompt.messages, prompt.late_tools) == (
        (READ, WEB, BASH),
        SYSTEM,
        (),
        MESSAGES,
        (),
    )
    assert [section.name for section in sections_of(prompt)][:5] == [
        "tools.Read",
        "tools.Web",
        "tools.Bash",
        "system.0",
        "system.1",
    ]


def test_only_what_anyclaude_itself_said_is_left_out() -> None:
    own = Message("assistant", (ThinkingBlock("read 5", own_signature("read 5")),))

    assert plain(MessagesRequest("m", (*MESSAGES, own))).messages == MESSAGES


def test_a_server_that_defers_tools_itself_has_them_where_they_are_referred_to() -> None:
    result = ToolResultBlock("toolu_1", (ToolReferenceBlock("Web"),))
    request = MessagesRequest("m", (*MESSAGES, Message("user", (result,))), tools=(READ, WEB, BASH))
    prompt = plain(request, defers_tools=True)
    assert (prompt.tools, prompt.late_tools) == ((READ, BASH), (WEB,))
    assert "fetches" in sections_of(prompt)[-1].text
    assert plain(request).tools == (READ, WEB, BASH)
