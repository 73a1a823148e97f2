"""What every test with the real client needs: one launch on a scripted server, in `-p` mode or in a terminal; and the
embedded engine with a model that follows a script."""

import json
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from anyclaude.launch.choice import ASSUMED_WINDOW, Choice
from anyclaude.launch.overlay import Door, overlay
from anyclaude.server.sessions import Session
from tests.client.engine_script import script_model
from tests.support.backend import Script, ScriptedBackend
from tests.support.engine_home import EngineHome, make_engine_home
from tests.support.gateway import RunningGateway
from tests.support.home import Home
from tests.support.terminal import Terminal

PROMPT = "\N{HEAVY RIGHT-POINTING ANGLE QUOTATION MARK ORNAMENT}"
CTRL_C, ENTER = "\x03", "\r"

Scripted = Callable[[Script], ScriptedBackend]
Open = Callable[..., Terminal]
Done = subprocess.CompletedProcess[str]


class Ask(Protocol):
    def __call__(
        self, backend: ScriptedBackend, *arguments: str, mode: str = "openai", stdin: str | None = None, **environ: str
    ) -> Done: ...


@pytest.fixture
def ask(home: Home) -> Ask:
    """`anyclaude -p …` to its end."""

    def run(
        backend: ScriptedBackend, *arguments: str, mode: str = "openai", stdin: str | None = None, **environ: str
    ) -> Done:
        return home.run("-p", *arguments, "--mode", mode, "--base-url", backend.url, stdin=stdin, **environ)

    return run


@pytest.fixture(scope="session")
def script_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `engine_script`."""
    return script_model(tmp_path_factory.mktemp("models") / "script")


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory, script_folder: Path) -> Generator[EngineHome]:
    """One machine for all tests that leave it usable: the client's own prompt is read once."""
    with make_engine_home(tmp_path_factory.mktemp("engine") / "home", script_folder) as made:
        yield made


def answer_dialogs(home: Home) -> None:
    """The client's own first-run dialogs, beforehand."""
    file = home.root / "claude" / ".claude.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    answered = {"hasCompletedOnboarding": True, "projects": {str(home.project): {"hasTrustDialogAccepted": True}}}
    file.write_text(json.dumps(known | answered))


@pytest.fixture
def terminal(home: Home) -> Generator[Open]:
    """`anyclaude` in a terminal, at its prompt."""
    answer_dialogs(home)
    with ExitStack() as stack:

        def start(
            backend: ScriptedBackend, *arguments: str, mode: str = "openai", rows: int = 40, columns: int = 110
        ) -> Terminal:
            command = home.command("--mode", mode, "--base-url", backend.url, *arguments)
            made = Terminal(command, cwd=home.project, environment=home.environment, rows=rows, columns=columns)
            stack.enter_context(made)
            made.wait_until(has_prompt, what="the prompt")
            return made

        yield start


def direct_command(home: Home, gateway: RunningGateway, session: Session) -> list[str]:
    """The client on a gateway of this process, with the settings that a launch gives it."""
    choice = Choice(session.target, "scripted", ASSUMED_WINDOW)
    settings = overlay(Door(gateway.url, session.token), choice, no_proxy="127.0.0.1")
    return [home.environment["ANYCLAUDE_CLIENT"], "--settings", json.dumps(settings)]


def has_prompt(screen: str) -> bool:
    """The box that takes what the person types, and the line below it that says in which mode."""
    return PROMPT in screen and "manual mode" in screen


def say(terminal: Terminal, words: str) -> None:
    """Enter only when the words stand there: all in one go would be a paste."""
    terminal.type(words)
    terminal.wait_for(f"{PROMPT} {words}")
    terminal.type(ENTER)


def leave(terminal: Terminal) -> int:
    terminal.type(CTRL_C)
    terminal.wait_for("Press Ctrl-C again to exit")
    terminal.type(CTRL_C)
    return terminal.wait_for_end()
