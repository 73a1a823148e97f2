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
    home = Path(environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME", "~")).expanduser() / ".claude")
    files = [
        (home / "settings.json", False),
        (project / ".claude" / "settings.json", False),
        (project / ".claude" / "settings.local.json", False),
        *((path, True) for path in _MANAGED),
    ]
    return [Redirect(file, name, wins) for file, wins in files for name in _redirecting(file)]


def _redirecting(file: Path) -> Iterator[str]:
    try:
        fields = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return
    env = cast("dict[str, Any]", fields).get("env") if isinstance(fields, dict) else None
    if isinstance(env, dict):
        yield from (name for name in cast("dict[str, Any]", env) if redirects(name))
