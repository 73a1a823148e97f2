"""The client's environment: the person's own, without what would redirect its model access.

Everything else stays, so that `aws`, `gh` and the rest work in commands that the model runs.
"""

from collections.abc import Mapping

_PREFIXES = ("ANTHROPIC_", "CLAUDE_CODE_USE_")
_NAMES = frozenset({"AWS_BEARER_TOKEN_BEDROCK"})


def redirects(name: str) -> bool:
    """Whether a variable may send the client's requests or its key elsewhere."""
    return name.startswith(_PREFIXES) or name in _NAMES


def client_environment(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if not redirects(name)}


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The server outlives this launch: nothing that only this launch chose may reach it."""
    return {
        name: value
        for name, value in environ.items()
        if not redirects(name) and not name.startswith(("ANYCLAUDE_", "CLAUDE_"))
    }


def no_proxy(environ: Mapping[str, str]) -> str:
    """The person's own exceptions and this machine: proxy variables apply to 127.0.0.1 too."""
    given = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    return ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost", "::1"]))
