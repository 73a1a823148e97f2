"""The settings that one launch lays over the person's own, in a private file given by `--settings`.

Settings of that option win over user and project settings, whose `env` even overrides the process environment. The
person's own `--settings` is merged in. Nothing in their home is written. Each key's effect was measured with
Claude Code 2.1.330.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.backends.kinds import KINDS
from anyclaude.errors import UsageError
from anyclaude.launch.choice import Choice
from anyclaude.launch.environment import redirects

Fields = dict[str, Any]

_TIMEOUT_MS = "1800000"  # the most that the client takes; a laptop may read a long prompt for minutes


class Door(Struct, frozen=True):
    """Where the client reaches the gateway, and with which token."""

    url: str
    token: str


def overlay(door: Door, choice: Choice, *, no_proxy: str) -> Fields:
    return {
        "env": {
            "ANTHROPIC_BASE_URL": door.url,
            "ANTHROPIC_AUTH_TOKEN": door.token,
            "CLAUDE_CODE_GATEWAY_HINT_HEADERS": "1",
            "API_TIMEOUT_MS": _TIMEOUT_MS,
            "CLAUDE_STREAM_IDLE_TIMEOUT_MS": _TIMEOUT_MS,
            "CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS": _TIMEOUT_MS,
            "NO_PROXY": no_proxy,
            "no_proxy": no_proxy,
            **(_model_env(choice) if choice.model is not None else {}),
        },
        # Without the vendor's own safety check auto mode opens a dialog and then asks at every call.
        "permissions": {"disableAutoMode": "disable"},
        **(_picker(choice) if choice.model is not None else {}),
    }


def _model_env(choice: Choice) -> dict[str, str]:
    """A model of the person's own: its name everywhere, its limits, and no traffic but ours."""
    assert choice.model is not None
    tiers = {f"ANTHROPIC_DEFAULT_{tier}_MODEL": choice.model for tier in ("OPUS", "SONNET", "HAIKU", "FABLE")}
    return {
        "ANTHROPIC_MODEL": choice.model,
        **tiers,
        "CLAUDE_CODE_SUBAGENT_MODEL": choice.model,
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(choice.window),
        "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(choice.target.max_output_tokens),
        "CLAUDE_CODE_DISABLE_1M_CONTEXT": "1",
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
    }


def _picker(choice: Choice) -> Fields:
    names = dict.fromkeys([choice.model, *choice.target.models])
    title, place = KINDS[choice.target.kind].title, choice.target.base_url
    description = f"{title} at {place}" if "://" in place else title
    options = [{"model": name, "label": name, "description": description} for name in names]
    return {"modelPicker": {"replaceBuiltInOptions": True, "options": options}}


def merged(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Fields:
    """Both, table by table; where both say something, ours. The person's `env` loses what redirects the client."""
    result: Fields = dict(theirs)
    for key, value in ours.items():
        mine = result.get(key)
        if isinstance(value, Mapping) and isinstance(mine, Mapping):
            result[key] = merged(cast("Mapping[str, Any]", mine), cast("Mapping[str, Any]", value))
        else:
            result[key] = value
    return result


def with_redirects_blank(fields: Fields, names: Iterable[str]) -> Fields:
    """Variables that the person's or the project's settings set to redirect the client are set to nothing here."""
    return fields | {"env": dict.fromkeys(names, "") | cast("Fields", fields["env"])}


def take_settings(arguments: Sequence[str]) -> tuple[Fields, tuple[str, ...]]:
    """The person's own `--settings` (files or JSON), merged in their order, and the other arguments."""
    theirs: Fields = {}
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, has_value, value = argument.partition("=")
        if name != "--settings":
            rest.append(argument)
            continue
        given = value if has_value else next(waiting, None)
        if given is None:
            raise UsageError("--settings needs a value: a file or JSON")
        theirs = merged(theirs, read_settings_option(given))
    env = theirs.get("env")
    if isinstance(env, Mapping):
        kept = {key: value for key, value in cast("Fields", env).items() if not redirects(key)}
        theirs = theirs | {"env": kept}
    return theirs, tuple(rest)


def read_settings_option(given: str) -> Fields:
    """As the client reads it: JSON where it looks like an object, else a file."""
    try:
        text = given if given.lstrip().startswith("{") else Path(given).expanduser().read_text("utf-8")
        fields = json.loads(text)
    except OSError as error:
        raise UsageError(f"--settings {given}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--settings: not JSON: {error}") from None
    except RuntimeError as error:  # a home folder that nobody has, or JSON too deep to be settings
        raise UsageError(f"--settings {given[:80]}: {error}") from None
    if not isinstance(fields, dict):
        raise UsageError("--settings: a JSON object is needed")
    return cast("Fields", fields)
