"""Conversations in the terminal, and between it and `-p`: the client keeps its session, and the prompt only grows."""

import json
from typing import Any

from tests.client.conftest import ENTER, Ask, Open, Scripted, has_prompt, leave, say
from tests.support import chat
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.home import Home
from tests.support.recorded_session import (
    Recorded,
    assert_each_extends,
    assert_grew,
    assert_only_grew,
    bodies,
    n_shared,
    recorded,
    why,
)
from tests.support.script import in_order, tool_names
from tests.support.terminal import Terminal

ASK = "AskUserQuestion"  # the client offers it in a terminal only


def answers(n: int) -> list[chat.Chunks]:
    return [chat.text(f"answer {number}") for number in range(n)]


def talk(at: Terminal, *turns: tuple[str, str]) -> None:
    """What the person says and what is answered, then the end of the client."""
    for words, answer in turns:
        say(at, words)
        at.wait_for(answer)
        at.wait_until(has_prompt, what="the prompt")
    assert leave(at) == 0


def entrypoints(turns: list[Recorded]) -> list[str | None]:
    return [turn.row.entrypoint for turn in turns]


def test_p_then_the_terminal_then_p_again_is_one_prompt_that_grows(
    ask: Ask, terminal: Open, home: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(*answers(4)))
    session = json.loads(ask(backend, "--output-format", "json", "one", mode="mlx-lm").stdout)["session_id"]
    talk(terminal(backend, "--resume", session, mode="mlx-lm"), ("two", "answer 1"), ("three", "answer 2"))
    ask(backend, "--resume", session, "four", mode="mlx-lm")
    turns = recorded(home, 4)
    assert entrypoints(turns) == ["sdk-cli", "cli", "cli", "sdk-cli"]
    assert {turn.row.session for turn in turns} == {session}
    assert_only_grew(turns)
    sent = bodies(backend)
    assert_each_extends(sent)
    assert ASK not in tool_names(sent[1])
    assert f'\\"name\\":\\"{ASK}\\"' in json.dumps(sent[1]["messages"][-1])  # with its whole definition
    assert f"messages.2.late_tool.{ASK}.2" in turns[1].names


def test_in_the_terminal_a_server_that_lists_late_tools_reads_the_head_again_and_is_told_why(
    ask: Ask, terminal: Open, home: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(*answers(3)))
    session = json.loads(ask(backend, "--output-format", "json", "one").stdout)["session_id"]
    talk(terminal(backend, "--resume", session), ("two", "answer 1"), ("three", "answer 2"))
    _, two, three = recorded(home, 3)
    assert_grew(two, three)
    told = why(home, two)
    assert told["verdict"] == "changed"
    assert (told["section"]["change"], told["section"]["name"]) == ("added", f"tools.{ASK}")
    sent = bodies(backend)
    assert sent[1]["tools"][:-1] == sent[0]["tools"]
    assert tool_names(sent[1])[-1] == ASK
    assert_each_extends(sent[1:])


def test_continue_in_the_terminal_after_p_goes_on_where_it_was(
    ask: Ask, terminal: Open, home: Home, scripted: Scripted
) -> None:
    """In a terminal `--continue` finds a conversation that began in one; one that `-p` began is resumed by its id."""
    backend = scripted(in_order(*answers(5)))
    talk(terminal(backend), ("one", "answer 0"), ("two", "answer 1"))
    ask(backend, "--continue", "three")
    talk(terminal(backend, "--continue"), ("four", "answer 3"), ("five", "answer 4"))
    turns = recorded(home, 5)
    assert entrypoints(turns) == ["cli", "cli", "sdk-cli", "cli", "cli"]
    assert len({turn.row.session for turn in turns}) == 1
    assert_only_grew(turns)
    assert_each_extends(bodies(backend))


def test_a_new_session_in_the_terminal_has_other_tools_than_one_of_p_and_they_are_named(
    ask: Ask, terminal: Open, home: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(*answers(4)))
    ask(backend, "one")
    talk(terminal(backend), ("two", "answer 1"))
    ask(backend, "three")
    talk(terminal(backend), ("four", "answer 3"))
    by_p, in_terminal, by_p_again, in_terminal_again = recorded(home, 4)
    told = why(home, in_terminal)
    assert (told["verdict"], told["compared_with"]) == ("changed", by_p.row.id)
    assert (told["section"]["change"], told["section"]["name"]) == ("changed", "tools.Agent")
    for earlier, later in ((by_p, by_p_again), (in_terminal, in_terminal_again)):
        assert later.row.compared_with == earlier.row.id
        assert n_shared(earlier, later) == len(earlier.sections) - 1  # each kind of session has its own head
        assert why(home, later)["section"]["name"] == later.names[-1]


class TwoModels(ScriptedBackend):
    """One server with two models."""

    def get(self, exchange: Exchange) -> None:
        models: list[dict[str, Any]] = [
            {"id": name, "object": "model", "context_length": self.window} for name in (self.model, "another")
        ]
        exchange.json(200, {"object": "list", "data": models})


def switch(at: Terminal, model: str) -> None:
    say(at, f"/model {model}")
    at.wait_for("Switch model?")
    at.press_until(ENTER, f"Set model to {model}")
    at.wait_until(has_prompt, what="the prompt")


def test_a_switch_of_the_model_is_named_and_the_way_back_only_grows(terminal: Open, home: Home) -> None:
    with TwoModels(in_order(*answers(3))) as backend:
        at = terminal(backend, "--model", "scripted")
        say(at, "one")
        at.wait_for("answer 0")
        switch(at, "another")
        say(at, "two")
        at.wait_for("answer 1")
        switch(at, "scripted")
        talk(at, ("three", "answer 2"))
        one, two, three = recorded(home, 3)
        assert [turn.row.model for turn in (one, two, three)] == ["scripted", "another", "scripted"]
        told = why(home, two)
        assert (told["verdict"], told["section"]) == ("other_model", None)
        assert "another" in told["explanation"]
        assert_grew(one, three)
        assert_each_extends(bodies(backend))  # the prompt itself grew all the time
