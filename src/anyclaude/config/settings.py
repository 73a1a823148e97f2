"""Settings as one frozen value, read once.

The first of these wins: option, variable, the named backend in the file, the file, the default. Every field
remembers where it came from. An unknown key is an error that suggests the right one.
"""

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.config.secret import Secret
from anyclaude.config.table import BY_NAME, SETTINGS, Setting, switch
from anyclaude.errors import SettingError


class Settings(Struct, frozen=True, kw_only=True):
    """`sources` tells where each field came from; `kind` is the named backend's kind of server."""

    mode: str | None = None
    model: str | None = None
    base_url: str | None = None
    api_key: Secret | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    backend_silence_s: float = 1500.0
    port: int = 0
    host: str = "127.0.0.1"
    token: Secret | None = None
    idle_stop_s: float = 1800.0
    client: str | None = None
    trace_budget_mb: int = 200
    trace_days: int = 7
    engine_memory_mb: int | None = None
    kv_memory_mb: int | None = None
    kv_disk_mb: int = 20_000
    kv_disk_days: int = 30
    kv_write_mb_a_day: int = 40_000
    private: bool = False
    debug: str = "info"
    kind: str | None = None
    backend_names: tuple[str, ...] = ()
    sources: dict[str, str] = {}


def read_settings(options: Mapping[str, str], environ: Mapping[str, str], file: Path) -> Settings:
    """`options` are by setting name. Raises SettingError."""
    document = _read_file(file)
    backends = cast("dict[str, dict[str, Any]]", document.pop("backends", {}))
    _check_file(document, backends, file)
    mode, mode_source = _first(BY_NAME["mode"], _places(options, environ, document, {}, file, ""))
    if mode in backends and mode_source == str(file) and _is_given("base_url", options, environ):
        mode, mode_source = None, "default"  # an address given for this launch sets the file's backend aside
    chosen = backends.get(mode or "", {})
    label = f"{file} [backends.{mode}]"
    values: dict[str, Any] = {"mode": mode}
    sources = {"mode": mode_source}
    for setting in SETTINGS[1:]:
        places = _places(options, environ, document, chosen, file, label)
        values[setting.name], sources[setting.name] = _first(setting, places)
    kind = chosen.get("kind") if chosen else None
    return Settings(**values, kind=kind, backend_names=tuple(backends), sources=sources)


def _is_given(name: str, options: Mapping[str, str], environ: Mapping[str, str]) -> bool:
    return name in options or bool(environ.get(BY_NAME[name].variable))


Place = tuple[str, Mapping[str, Any]]


def _places(
    options: Mapping[str, str],
    environ: Mapping[str, str],
    document: Mapping[str, Any],
    chosen: Mapping[str, Any],
    file: Path,
    label: str,
) -> tuple[Place, ...]:
    variables = {s.name: environ[s.variable] for s in SETTINGS if environ.get(s.variable)}
    return (("option", options), ("variable", variables), (label, chosen), (str(file), document))


def _first(setting: Setting, places: tuple[Place, ...]) -> tuple[Any, str]:
    for label, values in places:
        if setting.name not in values:
            continue
        source = {"option": f"--{setting.option}", "variable": setting.variable}.get(label, label)
        return _parsed(setting, values[setting.name], source), source
    return setting.default, "default"


def _parsed(setting: Setting, value: object, source: str) -> Any:
    if not isinstance(value, str | int | float) or (isinstance(value, bool) and setting.parse is not switch):
        raise SettingError(f"{setting.name} in {source}: must be text or a number")
    try:
        return setting.parse(str(value))
    except ValueError as error:
        is_secret = setting.parse is BY_NAME["api_key"].parse or "@" in str(value)  # a URL may hold a password
        shown = "" if is_secret else f" (not {value!r})"
        raise SettingError(f"{setting.name} from {source}: {error}{shown}") from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{file}: {error}") from None


def _check_file(document: dict[str, Any], backends: object, file: Path) -> None:
    _check_keys(document, [*BY_NAME, "backends"], str(file))
    if not isinstance(backends, dict):
        raise SettingError(f"{file}: backends must be tables such as [backends.work]")
    allowed = ["kind", *(setting.name for setting in SETTINGS if setting.per_backend)]
    for name, fields in cast("dict[str, Any]", backends).items():
        if not isinstance(fields, dict):
            raise SettingError(f"{file}: backends.{name} must be a table")
        _check_keys(cast("dict[str, Any]", fields), allowed, f"{file} [backends.{name}]")


def _check_keys(document: Mapping[str, Any], allowed: list[str], where: str) -> None:
    for key in document:
        if key not in allowed:
            close = difflib.get_close_matches(key, allowed, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(sorted(allowed))}"
            raise SettingError(f'{where}: unknown key "{key}"{hint}')
