"""Finding Claude Code, and becoming it: terminal, signals, pipes and exit status are then its own."""

import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyclaude.errors import ClientMissing

PACKAGE = "@anthropic-ai/claude-code"
_USUAL_PLACES = (
    "~/.local/bin/claude",
    "~/.claude/local/claude",
    "/opt/homebrew/bin/claude",
    "/usr/local/bin/claude",
    "~/.npm-global/bin/claude",
)


def find_client(chosen: str | None, search_path: str | None) -> str:
    """The executable. Raises ClientMissing."""
    if chosen is not None:
        found = shutil.which(str(Path(chosen).expanduser()), path=search_path)
        if found is None:
            raise ClientMissing(f"{chosen} (setting `client`) is not an executable file")
        return found
    if found := shutil.which("claude", path=search_path):
        return found
    for place in (*_USUAL_PLACES, str(Path(sys.executable).parent / "claude")):
        path = Path(place).expanduser()
        if os.access(path, os.X_OK):
            return str(path)
    raise ClientMissing(
        f"Claude Code is not installed (no `claude` on the PATH). Install it:  npm install -g {PACKAGE}"
    )


def become(client: str, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Replaces this process. Python ignores SIGPIPE and SIGXFSZ, and a program that it becomes would inherit that."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(client, [client, *arguments], dict(environment))  # noqa: S606
    except OSError as error:
        raise ClientMissing(f"cannot run {client}: {error.strerror}") from None
