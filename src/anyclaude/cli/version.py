"""`anyclaude --version`: ours and the client's."""

import subprocess
from collections.abc import Mapping

from anyclaude import __version__
from anyclaude.config.settings import Settings
from anyclaude.errors import ClientMissing
from anyclaude.launch.client import find_client


def client_version(settings: Settings, environ: Mapping[str, str]) -> str:
    """What the client says of itself. Raises ClientMissing."""
    client = find_client(settings.client, environ.get("PATH"))
    try:
        answer = subprocess.run([client, "--version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientMissing(f"{client} --version: {error}") from None
    return answer.stdout.strip().removesuffix(" (Claude Code)") or f"{client} --version said nothing"


def print_version(settings: Settings, environ: Mapping[str, str]) -> int:
    print(f"anyclaude {__version__}")
    try:
        print(f"Claude Code {client_version(settings, environ)}")
    except ClientMissing as error:
        print(error.message)
    return 0
