"""The real client on a real terminal, as a person uses it."""

import threading
from collections.abc import Callable
from typing import Any

from tests.client.conftest import CTRL_C, ENTER, PROMPT, Open, Scripted, has_prompt, leave, say
from tests.support import chat
from tests.support.backend import Exchange
from tests.support.home import Home
from tests.support.script import in_order, results, words_of_person

ESCAPE = "\x1b"
LIMIT_S = 60.0


def _wait_for_session_to_go(home: Home) -> dict[str, Any]:
    """The gateway looks for ended clients every 2 s; each `status` is a process of its own, so this is no busy loop."""
    for _ in range(100):
        (server,) = home.status()
        if not server["sessions"]:
            return server
    raise AssertionError("the session of a client that has ended is still there")


def test_a_question_brings_the_answer_on_the_screen_and_no_dialog_stands_between(
    terminal: Open, scripted: Scripted
) -> None:
    backend = scripted(in_order(chat.text("the scripted answer\nof two lines 🎉")))
    at = terminal(backend)
    assert "scripted" in at.text
    assert "auto mode" not in at.text.lower()
    say(at, "what is this")
    shown = at.wait_for("of two lines 🎉")
    assert "● the scripted answer" in shown
    assert "auto mode" not in shown.lower()
    assert words_of_person(backend.turns[0].body) == "what is this"
    assert len(backend.turns) == 1  # no title, no check, nothing beside it
    assert leave(at) == 0


def test_a_prompt_on_the_command_line_is_asked_at_once(terminal: Open, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("answered at once")))
    terminal(backend, "a first question").wait_for("answered at once")
    assert words_of_person(backend.turns[0].body) == "a first question"


def test_escape_stops_the_model_and_the_prompt_is_usable_again(terminal: Open, scripted: Scripted) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks([chat.delta(content="the beginning of a long"), chat.delta(content=" story\n\n")])
        exchange.wait_until_closed()

    backend = scripted(in_order(endless, chat.text("something shorter")))
    at = terminal(backend)
    say(at, "tell me a story")
    at.wait_for("the beginning of a long story")
    at.type(ESCAPE)
    assert backend.turns[0].was_closed.wait(LIMIT_S)
    at.wait_for("Interrupted")
    at.wait_until(has_prompt, what="the prompt")
    say(at, "shorter please")
    at.wait_for("something shorter")
    assert leave(at) == 0


def test_escape_while_the_prompt_is_read_reaches_the_server_too(terminal: Open, scripted: Scripted) -> None:
    def reads_for_long(exchange: Exchange) -> None:
        exchange.wait_until_closed()

    backend = scripted(in_order(reads_for_long))
    at = terminal(backend)
    say(at, "a long question")
    assert backend.arrived.acquire(timeout=LIMIT_S)
    at.wait_for("esc to interrupt")
    at.type(ESCAPE)
    assert backend.turns[0].was_closed.wait(LIMIT_S)


def test_a_resized_terminal_is_drawn_anew(terminal: Open, scripted: Scripted) -> None:
    at = terminal(scripted(in_order(chat.text("the answer"))), rows=40, columns=110)
    say(at, "x")
    at.wait_for("the answer")
    for rows, columns in ((24, 60), (50, 130)):
        at.resize(rows, columns)
        at.wait_until(lambda shown, columns=columns: is_drawn_for(shown, columns), what=f"a box of {columns} columns")


def is_drawn_for(screen: str, columns: int) -> bool:
    """The answer above, and the prompt between two lines that are as wide as the terminal."""
    return "● the answer" in screen and screen.split("\n").count("─" * columns) == 2 and has_prompt(screen)


def test_a_tool_call_asks_the_person_and_runs_when_allowed(terminal: Open, home: Home, scripted: Scripted) -> None:
    call = chat.call("Bash", {"command": "yes | head -1 > made.txt; yes | head -1", "description": "Say yes once"})
    backend = scripted(in_order(call, chat.text("it has been run")))
    at = terminal(backend)
    say(at, "run it")
    shown = at.wait_for("Do you want to proceed?")
    assert "auto mode" not in shown.lower()
    assert not (home.project / "made.txt").exists()
    at.press_until(ENTER, "it has been run")
    assert [result["content"] for result in results(backend.turns[-1].body)] == ["y"]  # no "Broken pipe"
    assert (home.project / "made.txt").read_text() == "y\n"


def test_a_second_ctrl_c_ends_the_client_and_the_gateway_lives_on(
    terminal: Open, home: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(chat.text("the answer"), chat.text("another")))
    at = terminal(backend)
    (before,) = home.status()
    assert [session["pid"] for session in before["sessions"]] == [at.process.pid]
    say(at, "x")
    at.wait_for("the answer")
    assert leave(at) == 0
    assert "--resume" in at.text
    after = _wait_for_session_to_go(home)
    assert after["pid"] == before["pid"]
    assert after["server"]["turns"] == 1
    assert after["server"]["uptime_s"] > before["server"]["uptime_s"]


def test_ctrl_c_in_mid_answer_stops_the_model_and_not_the_gateway(
    terminal: Open, home: Home, scripted: Scripted
) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks([chat.delta(content="on and on\n\n")])
        exchange.wait_until_closed()

    backend = scripted(in_order(endless, chat.text("still here")))
    at = terminal(backend)
    (before,) = home.status()
    say(at, "talk")
    at.wait_for("on and on")
    at.type(CTRL_C)
    assert backend.turns[0].was_closed.wait(LIMIT_S)
    at.wait_for("Interrupted")
    say(at, "are you there")
    at.wait_for("still here")
    (after,) = home.status()
    assert (after["pid"], [turn["error"] for turn in after["turns"]]) == (
        before["pid"],
        ["the client went away", None],
    )


def test_closing_the_terminal_ends_the_session_and_not_the_gateway(
    terminal: Open, home: Home, scripted: Scripted
) -> None:
    at = terminal(scripted(in_order()))
    (before,) = home.status()
    at.hang_up()
    at.wait_for_end()
    assert _wait_for_session_to_go(home)["pid"] == before["pid"]


def test_the_model_list_shows_the_local_model_and_nothing_of_the_vendors(terminal: Open, scripted: Scripted) -> None:
    backend = scripted(in_order())
    at = terminal(backend)
    at.type("/model")
    at.wait_for("/model")
    at.type(ENTER)
    shown = at.wait_for("Select model")
    assert f"OpenAI-compatible server at {backend.url}" in shown
    rows = [
        line.split(". ", 1)[1] for line in shown.split("\n") if line.strip(f" {PROMPT}")[:2] in ("1.", "2.", "3.", "4.")
    ]
    assert [row.split()[0] for row in rows] == ["Default", "scripted"]
    assert "currently scripted" in rows[0]
    assert not [name for name in ("opus", "sonnet", "haiku", "fable") if name in shown.lower()]


def test_two_terminals_use_two_servers_through_one_gateway(terminal: Open, home: Home, scripted: Scripted) -> None:
    both = threading.Barrier(2)  # passed only while both answers are under way

    def answers(words: str) -> Callable[[Exchange], None]:
        def script(exchange: Exchange) -> None:
            both.wait(LIMIT_S)
            exchange.answer(chat.text(words))

        return script

    one, two = (terminal(scripted(answers(words))) for words in ("from the first", "from the second"))
    (server,) = home.status()
    assert len(server["sessions"]) == 2
    say(one, "x")
    say(two, "x")
    assert "second" not in one.wait_for("from the first")
    assert "first" not in two.wait_for("from the second")
