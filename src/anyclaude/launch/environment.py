"""The client's environment: the person's own, without what would redirect its model access.

Everything else stays, so that `aws`, `gh` and the rest work in commands that the model runs.
"""

from collections.abc import Mapping

_PREFIXES = ("ANTHROPIC_", "CLAUDE_CODE_USE_")
_OUR_SECRETS = frozenset({"ANYCLAUDE_API_KEY", "ANYCLAUDE_TOKEN"})
_NAMES = frozenset({"AWS_BEARER_TOKEN_BEDROCK"})


def redirects(name: str) -> bool:
    """Whether a variable may send the client's requests or its key elsewhere."""
    return name.startswith(_PREFIXES) or name in _NAMES


def client_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Our own secrets stay here too: every command that the model runs would see them, and could send them to it."""
    return {name: value for name, value in environ.items() if not redirects(name) and name not in _OUR_SECRETS}


def quiet_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For the client's own commands, run without our settings. They report to nobody unless the person says so."""
    return {"DISABLE_TELEMETRY": "1", "DISABLE_ERROR_REPORTING": "1", **environ}


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
