"""Every setting: its name in the file, its variable, its option, what it means. The one list that help, docs
and reading share."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from anyclaude.config.secret import Secret

LOG_LEVELS = ("warning", "info", "debug")


def text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def secret(value: str) -> Secret:
    return Secret(text(value))


def url(value: str) -> str:
    parts = urlsplit(text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname or any(c.isspace() for c in value.strip()):
        raise ValueError("must be a URL that starts with http:// or https://")
    if parts.query or parts.fragment:
        raise ValueError("must be an address without ? and #")
    if parts.port == 0:  # reading it raises ValueError where it is no port
        raise ValueError("Port out of range 0-65535")
    if parts.username or parts.password:
        raise ValueError("must not hold a name or password; use api_key")
    return value.strip().rstrip("/")


def whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError("must be a whole number") from None


def port(value: str) -> int:
    number = whole(value)
    if not 0 <= number <= 65535:
        raise ValueError("must be between 0 and 65535")
    return number


def count(value: str) -> int:
    number = whole(value)
    if number < 1:
        raise ValueError("must be at least 1")
    return number


def amount(value: str) -> int:
    number = whole(value)
    if number < 0:
        raise ValueError("must not be negative")
    return number


def seconds(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError("must be a number of seconds") from None
    if not 0 < number < float("inf"):
        raise ValueError("must be a positive number of seconds")
    return number


def switch(value: str) -> bool:
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.lower() not in known:
        raise ValueError("must be true or false")
    return known[value.lower()]


def log_level(value: str) -> str:
    level = "debug" if value.lower() in ("1", "true", "yes", "on") else value.lower()
    if level not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return level


class Setting(Struct, frozen=True):
    """`option` is the flag without dashes; None where there is none; `bare` is its value where the flag stands alone.
    `per_backend` may stand in `[backends.NAME]`."""

    name: str
    parse: Callable[[str], Any]
    help: str
    default: Any = None
    option: str | None = None
    placeholder: str = ""
    per_backend: bool = False
    bare: str | None = None

    @property
    def variable(self) -> str:
        return f"ANYCLAUDE_{self.name.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "mode",
        text,
        "which kind of server, or a backend named in the file",
        option="mode",
        placeholder="MODE",
    ),
    Setting("model", text, "the model to use", option="model", placeholder="NAME", per_backend=True),
    Setting("base_url", url, "where the server is", option="base-url", placeholder="URL", per_backend=True),
    Setting("api_key", secret, "the server's key, if it wants one", per_backend=True),
    Setting("context_window", count, "tokens the model can read, if the server does not tell", per_backend=True),
    Setting("max_output_tokens", count, "tokens the model may write in one answer", per_backend=True),
    Setting("backend_silence_s", seconds, "give up when the server sends nothing for so many seconds", 1500.0),
    Setting("port", port, "the gateway's port; 0 is any free one", 0, option="port", placeholder="PORT"),
    Setting("host", text, "the address `serve` listens on", "127.0.0.1", option="host", placeholder="ADDRESS"),
    Setting("token", secret, "the token that `serve` asks for; needed where the address is not loopback"),
    Setting("idle_stop_s", seconds, "the background gateway stops after so many seconds without a session", 1800.0),
    Setting("client", text, "the Claude Code executable", option=None),
    Setting("trace_budget_mb", count, "what traces may take on disk, in MB; the oldest go first", 200),
    Setting("trace_days", count, "traces are deleted after so many days", 7),
    Setting("engine_memory_mb", count, "what the engine's models and their state may take, in MB; a share if unset"),
    Setting("kv_memory_mb", count, "what the engine keeps of prompts' state in memory, in MB; a share if unset"),
    Setting("kv_disk_mb", amount, "what the engine keeps of prompts' state on disk, in MB; 0 writes none", 20_000),
    Setting("kv_disk_days", count, "prompts' state on disk is deleted after so many days without use", 30),
    Setting("kv_write_mb_a_day", amount, "what the engine may write to disk in a day, in MB", 40_000),
    Setting("private", switch, "write no turns, traces or caches of this launch", False, option="private", bare="true"),
    Setting("debug", log_level, "how much the log tells: warning, info or debug", "info", option="debug", bare="debug"),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}

# Those that reach the engine, under the same names.
ENGINE_SETTINGS = ("engine_memory_mb", "kv_memory_mb", "kv_disk_mb", "kv_disk_days", "kv_write_mb_a_day")
