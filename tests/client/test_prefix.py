"""One session of the real client: its prompt only grows, or the client rewrote it and `cache why` names where."""

import json
import threading
from typing import Any

from tests.client.conftest import Ask, Scripted
from tests.launch.test_processes import server_process
from tests.support import chat
from tests.support.backend import Exchange
from tests.support.home import Home
from tests.support.recorded_session import (
    assert_each_extends,
    assert_grew,
    assert_only_grew,
    bodies,
    n_shared,
    recorded,
    why,
)
from tests.support.script import in_order, tool_names, words_of_person

LIMIT_S = 60.0
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf"
    "c0f01f00050001ff56c72f0d0000000049454e44ae426082"
)


def bash(command: str, *, call_id: str) -> chat.Chunks:
    return chat.call("Bash", {"command": command}, call_id=call_id)


def test_a_tool_loop_with_thoughts_and_a_picture_only_grows(ask: Ask, home: Home, scripted: Scripted) -> None:
    (home.project / "dot.png").write_bytes(DOT)
    thought = [chat.delta(reasoning_content="let me look")]
    backend = scripted(
        in_order(
            [*thought, *bash("echo one", call_id="call_1")],
            [*thought, *chat.call("Read", {"file_path": str(home.project / "dot.png")}, call_id="call_2")],
            [*thought, *chat.text("a dot")],
            chat.text("goodbye"),
        )
    )
    for words in (("look",), ("--continue", "thanks")):
        assert ask(backend, *words, "--allowedTools", "Bash", mode="llamacpp").returncode == 0
    turns = recorded(home, 4)
    assert_only_grew(turns)
    assert {"thinking", "tool_use", "tool_result", "text"} <= turns[-1].kinds
    assert "messages.4.tool_result.Read.0" in turns[-1].names
    sent = bodies(backend)
    assert_each_extends(sent)
    assert [f"tools.{name}" for name in tool_names(sent[0])] == turns[0].names[: len(sent[0]["tools"])]
    assert '"image_url"' in json.dumps(sent[2]["messages"])
    assert json.dumps(sent[-1]["messages"]).count('"reasoning_content": "let me look"') == 3
    told = why(home, turns[-1])
    assert (told["verdict"], told["scope"], told["section"]) == ("grown", "session", None)
    assert told["tokens_could_be_cached"] == turns[-2].row.tokens_prompt
    assert not told["is_estimate"]


def test_a_counter_of_tokens_left_that_the_client_sends_each_turn_is_not_in_the_prompt(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    calls = [bash(f"echo {n}", call_id=f"call_{n}") for n in range(3)]
    backend = scripted(in_order(*calls, chat.text("done"), chat.text("goodbye")))
    countdown = {"CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "countdown"}
    for words in (("count",), ("--continue", "thanks")):
        assert ask(backend, *words, "--allowedTools", "Bash", **countdown).returncode == 0
    assert_only_grew(recorded(home, 5))
    sent = bodies(backend)
    assert_each_extends(sent)
    assert "<total_tokens>" not in json.dumps(sent[-1]["messages"][2:])  # after the preamble, where it never changes
    native = scripted(in_order())  # it refuses, but only after it was sent the same history as the client wrote it
    ask(native, "--continue", "x", "--model", "scripted", mode="anthropic", **countdown)
    counters = [message for message in native.turns[0].body["messages"][3:] if message["role"] == "system"]
    assert sum("<total_tokens>" in json.dumps(message) for message in counters) >= 3


def test_a_sub_agent_grows_by_itself_and_leaves_the_main_prompt_alone(ask: Ask, home: Home, scripted: Scripted) -> None:
    def script(exchange: Exchange) -> None:
        messages: list[dict[str, Any]] = exchange.body["messages"]
        if words_of_person(exchange.body) == "the task of the agent":
            if messages[-1]["role"] == "tool":
                exchange.answer(chat.text("the finding is 42"))
            else:
                together.wait(LIMIT_S)
                exchange.answer(bash("echo looking", call_id="call_2"))
        elif "the finding is 42" in messages[-1]["content"]:
            exchange.answer(chat.text("the agent found it"))
        elif messages[-1]["role"] == "tool":
            together.wait(LIMIT_S)
            exchange.answer(chat.text("I wait for it"))
        else:
            task = {"description": "look", "prompt": "the task of the agent", "subagent_type": "Explore"}
            exchange.answer(chat.call("Agent", task, call_id="call_1"))

    together = threading.Barrier(2)  # passed only if both requests are open at once
    backend = scripted(script)
    assert ask(backend, "the question", "--allowedTools", "Bash", mode="mlx-lm").returncode == 0
    turns = recorded(home, 5)
    main = [turn for turn in turns if turn.row.agent is None]
    agent = [turn for turn in turns if turn.row.agent is not None]
    assert (len(main), len(agent)) == (3, 2)
    assert len({turn.row.session for turn in turns}) == 1
    assert_only_grew(main)
    assert_only_grew(agent)
    is_agents = [words_of_person(body) == "the task of the agent" for body in bodies(backend)]
    for whose in (True, False):
        assert_each_extends([body for body, its in zip(bodies(backend), is_agents, strict=True) if its is whose])


def test_a_summary_asked_for_extends_the_prompt_and_what_follows_is_named_as_the_clients_own_rewrite(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    def script(exchange: Exchange) -> None:
        is_summary = "<summary>" in words_of_person(exchange.body)
        words = "<analysis>a</analysis><summary>They talked.</summary>" if is_summary else "the answer"
        exchange.answer(chat.text(words))

    backend = scripted(script)
    for words in (("one",), ("--continue", "/compact"), ("--continue", "two"), ("--continue", "three")):
        assert ask(backend, *words).returncode == 0
    one, summary, two, three = recorded(home, 4)
    assert summary.row.request_class == "compaction"
    assert_grew(one, summary)
    assert_grew(two, three)
    told = why(home, two)
    assert (told["verdict"], told["after_compaction"]) == ("changed", True)
    assert "rewrote its own history" in told["explanation"]
    head = [name for name in one.names if name.startswith(("tools.", "system."))]
    assert two.names[: n_shared(summary, two)] == head  # the client writes project and environment in another order
    assert told["section"]["name"] == two.names[len(head)] == "preamble.0"
    sent = bodies(backend)
    assert_each_extends(sent[:2])
    assert_each_extends(sent[2:])
    assert sent[2]["tools"] == sent[1]["tools"]
    assert sent[2]["messages"][0] == sent[1]["messages"][0]


def test_a_server_that_was_killed_compares_with_the_turns_from_before(ask: Ask, home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(*(chat.text(f"answer {n}") for n in range(3))))
    ask(backend, "one")
    before = recorded(home, 1)
    killed = server_process(home)
    killed.kill()
    killed.wait(LIMIT_S)
    ask(backend, "--continue", "two")
    assert_only_grew([*before, recorded(home, 2)[1]])
    assert home.run("stop").returncode == 0
    ask(backend, "--continue", "three")
    turns = recorded(home, 3)
    assert_only_grew(turns)
    assert_each_extends(bodies(backend))
    assert len({turn.row.launch for turn in turns}) == 3
    assert len({turn.row.session for turn in turns}) == 1
