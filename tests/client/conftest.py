"""What every test with the real client needs: one launch in `-p` mode on a scripted server."""

import subprocess
from collections.abc import Callable
from typing import Protocol

import pytest

from tests.support.backend import Script, ScriptedBackend
from tests.support.home import Home

Scripted = Callable[[Script], ScriptedBackend]
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
