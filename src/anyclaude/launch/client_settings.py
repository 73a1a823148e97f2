"""Settings files of Claude Code that try to send it elsewhere. They are read to warn of them, and never written."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.launch.environment import redirects

_MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)


class Redirect(Struct, frozen=True):
    """`name` is a variable or key in a settings file; `wins` where our overlay cannot override that file."""

    file: Path
    name: str
    wins: bool


def find_redirects(project: Path, environ: Mapping[str, str]) -> list[Redirect]:
    files = [
        (_own_file(environ), False),
        (project / ".claude" / "settings.json", False),
        (project / ".claude" / "settings.local.json", False),
        *((path, True) for path in _MANAGED),
    ]
    return [Redirect(file, name, wins) for file, wins in files for name in _redirecting(file)]


def default_model(environ: Mapping[str, str]) -> str | None:
    """The model that plain `claude` asks for by the person's own settings."""
    model = _read(_own_file(environ)).get("model")
    return model if isinstance(model, str) else None


def _own_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME", "~")).expanduser() / ".claude"
    return Path(home) / "settings.json"


def _redirecting(file: Path) -> Iterator[str]:
    env = _read(file).get("env")
    if isinstance(env, dict):
        yield from (name for name in cast("dict[str, Any]", env) if redirects(name))


def _read(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", fields) if isinstance(fields, dict) else {}
