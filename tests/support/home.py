"""A machine of a test's own: home, XDG folders, project, and the real client with a made-up token."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

LIMIT_S = 180.0


class Home(Struct, frozen=True):
    root: Path
    project: Path
    environment: dict[str, str]

    @property
    def runtime(self) -> Path:
        return self.root / "run" / "anyclaude"

    @property
    def state(self) -> Path:
        return self.root / "state" / "anyclaude"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "anyclaude", *arguments]

    def run(self, *arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """`anyclaude …` to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            cwd=self.project,
            env=self.environment | environment,
            timeout=LIMIT_S,
            check=False,
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.project,
            env=self.environment | environment,
        )

    @contextmanager
    def waiting_session(self, *arguments: str, **environment: str) -> Generator[dict[str, str]]:
        """`--no-launch`: a session that lasts as long as its process, its `pid`, and the settings that it printed."""
        process = self.start("--no-launch", *arguments, **environment)
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            settings: dict[str, str] = {"pid": str(process.pid)}
            while "ANTHROPIC_MODEL" not in settings or "no_proxy" not in settings:
                line = process.stdout.readline()
                assert line, process.stderr.read()
                name, _, value = line.removeprefix("export ").strip().partition("=")
                settings[name] = value.strip("'")
            yield settings
        finally:
            process.terminate()
            process.communicate(timeout=60)

    def status(self) -> list[dict[str, Any]]:
        """The running gateways, as `status --json` tells."""
        answer = self.run("status", "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)["servers"]


@contextmanager
def make_home(root: Path) -> Generator[Home]:
    project = root / "project"
    for folder in (project, root / "claude", root / "tmp"):
        folder.mkdir()
    (root / "run").mkdir(mode=0o700)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANYCLAUDE_", "ANTHROPIC_", "CLAUDE"))
    }
    home = Home(
        root,
        project,
        kept
        | {
            "HOME": str(root),
            "TMPDIR": str(root / "tmp"),
            "CLAUDE_CONFIG_DIR": str(root / "claude"),
            "XDG_CONFIG_HOME": str(root / "config"),
            "XDG_STATE_HOME": str(root / "state"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "ANYCLAUDE_CLIENT": str(Path(sys.executable).parent / "claude"),
            "IS_SANDBOX": "1",
        },
    )
    try:
        yield home
    finally:
        home.run("stop", "--force")
