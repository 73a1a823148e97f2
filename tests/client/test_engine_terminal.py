"""The embedded engine in a terminal, and what the person sees while a long prompt is read."""

import json
import subprocess
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.engine_child import EngineCommand
from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.seam import Target
from tests.client.conftest import ENTER, answer_dialogs, direct_command, has_prompt, leave, say
from tests.support import chat
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.engine_home import EngineHome, assert_reads_only_what_is_new
from tests.support.gateway import RunningGateway, running_gateway, target
from tests.support.home import LIMIT_S, Home
from tests.support.terminal import Terminal
from tests.support.wait import wait_until

NOTE = "Reading the prompt: "


def test_a_turn_with_a_tool_call_in_a_terminal(engine: EngineHome) -> None:
    answer_dialogs(engine.home)
    conversation = engine.conversation()
    command = engine.home.command(*conversation.arguments)
    with Terminal(command, cwd=engine.home.project, environment=engine.home.environment) as at:
        at.wait_until(has_prompt, what="the prompt")
        say(at, "in a terminal: zqask")
        at.wait_for("Do you want to proceed?")
        at.press_until(ENTER, "● All is done.")
        say(at, "zqagain")
        at.wait_for("● Still here.")
        turns = conversation.turns(3)
        assert leave(at) == 0
    assert [turn.tool_calls for turn in turns] == [1, 0, 0]
    assert {turn.entrypoint for turn in turns} == {"cli"}
    assert_reads_only_what_is_new(turns)


@pytest.fixture
def noting(tmp_path: Path) -> Generator[RunningGateway]:
    """A gateway that tells at once how far a prompt is read, and not only after a minute."""
    command = EngineCommand(cache=tmp_path / "engine", log_file=tmp_path / "engine.log")
    with running_gateway(engine=EngineProcess(command), note_after_s=0.0) as made:
        yield made


def test_the_note_about_reading_is_thinking_to_the_client_and_never_in_a_later_prompt(
    noting: RunningGateway, home: Home, script_folder: Path
) -> None:
    chosen = Target(kind="mlx", base_url="engine", model=str(script_folder), max_output_tokens=4_000)
    command = [*direct_command(home, noting, noting.session(chosen)), "--tools", "Bash"]
    command += ["--output-format", "stream-json", "--verbose", "--include-partial-messages"]
    first = told(home, [*command, "-p", "begin zqagain"])
    again = told(home, [*command, "--continue", "-p", "and again"])
    assert thoughts(first).startswith(NOTE)
    assert [event["result"] for event in (first[-1], again[-1])] == ["Still here.", "Still here."]
    recent = noting.gateway.ledger.recent
    wait_until(lambda: len(recent) == 2, "the turns are recorded")
    assert_reads_only_what_is_new(list(recent))


def told(home: Home, command: list[str]) -> list[dict[str, Any]]:
    """The lines of `stream-json`."""
    done = subprocess.run(
        command,
        cwd=home.project,
        env=home.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def thoughts(lines: list[dict[str, Any]]) -> str:
    """As they come, piece by piece."""
    events = [line["event"] for line in lines if line["type"] == "stream_event"]
    return "".join(event["delta"].get("thinking", "") for event in events if event["type"] == "content_block_delta")


def test_in_a_terminal_the_client_shows_that_it_thinks_and_goes_on(home: Home) -> None:
    """It shows that something is thought and for how long, but not the words."""

    def slow(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b": keepalive 2048/18490\n\n")
        goes_on.wait(LIMIT_S)
        exchange.chunks(chat.text("the answer"))
        exchange.done()

    goes_on = threading.Event()
    answer_dialogs(home)
    with ScriptedBackend(slow) as backend, running_gateway(note_after_s=0.0) as gateway:
        command = direct_command(
            home, gateway, gateway.session(target(backend.url, kind="mlx-lm", max_output_tokens=4_000))
        )
        with Terminal(command, cwd=home.project, environment=home.environment) as at:
            at.wait_until(has_prompt, what="the prompt")
            say(at, "what takes so long")
            at.wait_for("· thinking)")
            goes_on.set()
            assert "Thought for" in at.wait_for("● the answer")
            say(at, "and again")
            wait_until(lambda: len(backend.turns) == 2, "the second prompt is there")
        assert not [exchange for exchange in backend.turns if NOTE in exchange.raw.decode()]
        assert "the answer" in backend.turns[1].raw.decode()
