"""Tools that join in mid-conversation: loaded by a search, announced by the client, or listed without a word."""

import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.conftest import Ask, Done, Scripted
from tests.launch.test_processes import server_process
from tests.support import chat, mcp_server
from tests.support.backend import ScriptedBackend
from tests.support.home import Home
from tests.support.recorded_session import assert_each_extends, assert_only_grew, bodies, recorded, why
from tests.support.script import Body, in_order, results, tool_names

NEWCOMER = "mcp__growing__newcomer"
ALL_LISTED = {"ENABLE_TOOL_SEARCH": "false"}
LIMIT_S = 60.0

AskGrowing = Callable[..., Done]


@pytest.fixture
def ask_growing(ask: Ask, home: Home) -> AskGrowing:
    """`anyclaude -p …` with an MCP server that gets a tool more in mid-session."""
    arguments = [mcp_server.__file__, str(home.root / "grown")]
    server = {"mcpServers": {"growing": {"command": sys.executable, "args": arguments}}}

    def run(backend: ScriptedBackend, *words: str, **more: Any) -> Done:
        options = ("--mcp-config", json.dumps(server), "--allowedTools", "mcp__growing")
        done = ask(backend, *words, *options, **more)
        assert done.returncode == 0, done.stderr
        return done

    return run


def last_words(body: Body) -> str:
    return json.dumps(body["messages"][-1])


def test_with_mlx_lm_tools_that_a_search_loads_are_appended(ask: Ask, home: Home, scripted: Scripted) -> None:
    search = chat.call("ToolSearch", {"query": "select:CronList,WebFetch", "max_results": 2}, call_id="call_1")
    backend = scripted(
        in_order(search, chat.call("CronList", {}, call_id="call_2"), chat.text("none"), chat.text("bye"))
    )
    for words in (("what is planned",), ("--continue", "thanks")):
        ask(backend, *words, mode="mlx-lm")
    turns = recorded(home, 4)
    assert_only_grew(turns)
    sent = bodies(backend)
    assert_each_extends(sent)
    loaded = results(sent[1])[-1]["content"].split("\n")
    assert [json.loads(line)["function"]["name"] for line in loaded] == ["CronList", "WebFetch"]


def test_with_a_server_that_lists_late_tools_the_search_is_paid_once_and_explained(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    search = chat.call("ToolSearch", {"query": "select:CronList", "max_results": 1}, call_id="call_1")
    backend = scripted(
        in_order(search, chat.call("CronList", {}, call_id="call_2"), chat.text("none"), chat.text("bye"))
    )
    for words in (("what is planned",), ("--continue", "thanks")):
        ask(backend, *words)
    before, loaded, *rest = recorded(home, 4)
    assert_only_grew([loaded, *rest])
    told = why(home, loaded)
    section = told["section"]
    assert (told["verdict"], told["compared_with"]) == ("changed", before.row.id)
    assert (section["change"], section["kind"], section["name"]) == ("added", "tool", "tools.CronList")
    assert section["n_shared"] == sum(section.kind == "tool" for section in before.sections)  # all that were there
    assert told["tokens_lost"] > 0
    sent = bodies(backend)
    assert sent[1]["tools"][:-1] == sent[0]["tools"]
    assert_each_extends(sent[1:])


def test_a_tool_that_joins_unannounced_is_announced_where_it_joined_and_stays_there_after_a_restart(
    ask_growing: AskGrowing, home: Home, scripted: Scripted
) -> None:
    grow = chat.call("mcp__growing__grow", {}, call_id="call_1")
    backend = scripted(
        in_order(grow, chat.call(NEWCOMER, {}, call_id="call_2"), *(chat.text(f"answer {n}") for n in range(3)))
    )
    ask_growing(backend, "grow", mode="mlx-lm", **ALL_LISTED)
    ask_growing(backend, "--continue", "again", mode="mlx-lm", **ALL_LISTED)
    assert len(recorded(home, 4)) == 4  # all is written before the server is killed
    killed = server_process(home)
    killed.kill()
    killed.wait(LIMIT_S)
    ask_growing(backend, "--continue", "and again", mode="mlx-lm", **ALL_LISTED)
    turns = recorded(home, 5)
    assert_only_grew(turns)
    assert turns[1].names[-1] == f"messages.2.late_tool.{NEWCOMER}.1"
    sent = bodies(backend)
    assert_each_extends(sent)
    assert not any(NEWCOMER in tool_names(body) for body in sent)
    assert "A tool joined and can be called from now on" in last_words(sent[1])
    assert NEWCOMER in last_words(sent[1])
    assert results(sent[2])[-1]["content"] == "newcomer was called"


def test_a_tool_that_goes_away_is_named(ask_growing: AskGrowing, home: Home, scripted: Scripted) -> None:
    grow = chat.call("mcp__growing__grow", {}, call_id="call_1")
    backend = scripted(in_order(grow, chat.text("grown"), chat.text("smaller"), chat.text("still")))
    ask_growing(backend, "grow", mode="mlx-lm", **ALL_LISTED)
    (home.root / "grown").unlink()
    ask_growing(backend, "--continue", "what now", mode="mlx-lm", **ALL_LISTED)
    ask_growing(backend, "--continue", "and now", mode="mlx-lm", **ALL_LISTED)
    before, grown, smaller, still = recorded(home, 4)
    assert_only_grew([before, grown])
    assert_only_grew([smaller, still])
    section = why(home, smaller)["section"]
    assert (section["change"], section["name"]) == ("removed", f"messages.2.late_tool.{NEWCOMER}.1")


def test_a_tool_that_the_client_announces_is_no_break_either(
    ask_growing: AskGrowing, home: Home, scripted: Scripted
) -> None:
    """With its tool search on, the client says which tools came and went, and loads none of itself."""
    grow = chat.call("mcp__growing__grow", {}, call_id="call_1")
    backend = scripted(in_order(grow, chat.text("grown"), chat.text("smaller")))
    ask_growing(backend, "grow")
    (home.root / "grown").unlink()
    ask_growing(backend, "--continue", "what now")
    assert_only_grew(recorded(home, 3))
    sent = bodies(backend)
    assert_each_extends(sent)
    assert NEWCOMER in last_words(sent[1])
    assert NEWCOMER in last_words(sent[2])  # it is gone
