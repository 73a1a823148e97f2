from collections.abc import Mapping
from pathlib import Path

import pytest

from anyclaude.config.secret import Secret
from anyclaude.config.settings import Settings, read_settings
from anyclaude.config.table import SETTINGS
from anyclaude.errors import SettingError

KEY = "sk-very-secret"


def read(
    folder: Path, text: str | None = None, *, options: Mapping[str, str] | None = None, **environ: str
) -> Settings:
    file = folder / "config.toml"
    if text is not None:
        file.write_text(text, "utf-8")
    return read_settings(options or {}, environ, file)


def refused(folder: Path, text: str | None = None, *, options: Mapping[str, str] | None = None, **environ: str) -> str:
    with pytest.raises(SettingError) as caught:
        read(folder, text, options=options, **environ)
    assert KEY not in caught.value.message
    return caught.value.message


def test_without_anything_every_setting_is_its_default(tmp_path: Path) -> None:
    settings = read(tmp_path)

    assert settings.mode is None
    assert settings.host == "127.0.0.1"
    assert {name: getattr(settings, name) for name in settings.sources} == {s.name: s.default for s in SETTINGS}
    assert set(settings.sources.values()) == {"default"}


def test_the_defaults_of_the_value_are_those_of_the_table() -> None:
    assert {setting.name: getattr(Settings(), setting.name) for setting in SETTINGS} == {
        setting.name: setting.default for setting in SETTINGS
    }


def test_an_option_wins_over_a_variable_over_a_backend_over_the_file(tmp_path: Path) -> None:
    text = 'mode = "work"\nmodel = "of the file"\n[backends.work]\nmodel = "of the backend"\n'
    file = tmp_path / "config.toml"

    by_option = read(tmp_path, text, options={"model": "of the option"}, ANYCLAUDE_MODEL="of the variable")
    assert (by_option.model, by_option.sources["model"]) == ("of the option", "--model")
    by_variable = read(tmp_path, ANYCLAUDE_MODEL="of the variable")
    assert (by_variable.model, by_variable.sources["model"]) == ("of the variable", "ANYCLAUDE_MODEL")
    by_backend = read(tmp_path)
    assert (by_backend.model, by_backend.sources["model"]) == ("of the backend", f"{file} [backends.work]")
    by_file = read(tmp_path, options={"mode": "vllm"})
    assert (by_file.model, by_file.sources["model"]) == ("of the file", str(file))


def test_every_source_reaches_every_setting(tmp_path: Path) -> None:
    words = {
        "base_url": "http://x:1",
        "context_window": "5",
        "max_output_tokens": "5",
        "backend_silence_s": "5",
        "port": "5",
        "idle_stop_s": "5",
        "private": "yes",
        "trace_budget_mb": "5",
        "engine_memory_mb": "5",
        "kv_memory_mb": "5",
        "kv_disk_mb": "5",
        "kv_disk_days": "5",
        "kv_write_mb_a_day": "5",
        "trace_days": "5",
        "debug": "warning",
    }
    for setting in SETTINGS:
        value = words.get(setting.name, "word")
        variables = {setting.variable: value}
        by_variable = read_settings({}, variables, tmp_path / "none.toml")
        by_file = read(tmp_path, f'{setting.name} = "{value}"')

        assert getattr(by_variable, setting.name) == getattr(by_file, setting.name) != setting.default
        assert by_variable.sources[setting.name] == setting.variable


def test_an_empty_variable_is_no_variable(tmp_path: Path) -> None:
    assert read(tmp_path, 'model = "m"', ANYCLAUDE_MODEL="").model == "m"


def test_an_empty_option_is_an_error(tmp_path: Path) -> None:
    assert "--model: must not be empty" in refused(tmp_path, options={"model": " "})


def test_numbers_may_stand_as_numbers_or_text(tmp_path: Path) -> None:
    settings = read(tmp_path, 'port = 8123\nidle_stop_s = 60\ncontext_window = "4096"\nbackend_silence_s = 2.5')

    assert (settings.port, settings.idle_stop_s, settings.context_window, settings.backend_silence_s) == (
        8123,
        60.0,
        4096,
        2.5,
    )


def test_an_address_loses_its_last_slash(tmp_path: Path) -> None:
    assert read(tmp_path, 'base_url = " https://x/v1/ "').base_url == "https://x/v1"


# Named backends


def test_a_named_backend_brings_its_kind_and_key(tmp_path: Path) -> None:
    text = f'[backends.work]\nkind = "vllm"\nbase_url = "http://gpu:8000"\napi_key = "{KEY}"\n[backends.home]\n'
    settings = read(tmp_path, text, options={"mode": "work"})

    assert (settings.mode, settings.kind, settings.base_url) == ("work", "vllm", "http://gpu:8000")
    assert settings.api_key == Secret(KEY)
    assert settings.backend_names == ("work", "home")


def test_a_backend_that_was_not_chosen_says_nothing(tmp_path: Path) -> None:
    settings = read(tmp_path, '[backends.work]\nkind = "vllm"\nmodel = "m"')

    assert (settings.kind, settings.model) == (None, None)
    assert settings.backend_names == ("work",)


def test_the_file_itself_may_choose_the_backend(tmp_path: Path) -> None:
    assert read(tmp_path, 'mode = "work"\n[backends.work]\nmodel = "m"').model == "m"


# Errors


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ('modelx = "x"', "modelx", 'did you mean "model"?'),
        ("[backend.work]", "backend", 'did you mean "backends"?'),
        ("zzz = 1", "zzz", "known are api_key, backend_silence_s,"),
        ("[backends.work]\nbaseurl = 1", "baseurl", 'did you mean "base_url"?'),
        ("[backends.work]\nport = 1", "port", "known are api_key, base_url,"),
    ],
)
def test_an_unknown_key_is_an_error_that_suggests_the_right_one(tmp_path: Path, text: str, key: str, hint: str) -> None:
    message = refused(tmp_path, text)

    assert str(tmp_path / "config.toml") in message
    assert f'unknown key "{key}"' in message
    assert hint in message


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("ANYCLAUDE_PORT", "eighty", "must be a whole number (not 'eighty')"),
        ("ANYCLAUDE_PORT", "70000", "must be between 0 and 65535 (not '70000')"),
        ("ANYCLAUDE_PORT", "-1", "must be between 0 and 65535"),
        ("ANYCLAUDE_CONTEXT_WINDOW", "0", "must be at least 1"),
        ("ANYCLAUDE_MAX_OUTPUT_TOKENS", "1.5", "must be a whole number"),
        ("ANYCLAUDE_IDLE_STOP_S", "0", "must be a positive number of seconds"),
        ("ANYCLAUDE_IDLE_STOP_S", "inf", "must be a positive number of seconds"),
        ("ANYCLAUDE_BACKEND_SILENCE_S", "nan", "must be a positive number of seconds"),
        ("ANYCLAUDE_BACKEND_SILENCE_S", "long", "(not 'long')"),
        ("ANYCLAUDE_KV_DISK_MB", "-1", "must not be negative"),
        ("ANYCLAUDE_KV_DISK_DAYS", "0", "must be at least 1"),
        ("ANYCLAUDE_ENGINE_MEMORY_MB", "16GB", "must be a whole number"),
        ("ANYCLAUDE_BASE_URL", "127.0.0.1:8080", "must be a URL that starts with http:// or https://"),
        ("ANYCLAUDE_BASE_URL", "ftp://x", "must be a URL"),
        ("ANYCLAUDE_BASE_URL", "http://", "must be a URL"),
        ("ANYCLAUDE_BASE_URL", "http://[::1", "Invalid IPv6 URL"),
        ("ANYCLAUDE_DEBUG", "loud", "must be one of warning, info, debug"),
        ("ANYCLAUDE_MODEL", "  ", "must not be empty"),
    ],
)
def test_a_bad_value_names_its_source_and_what_is_wanted(
    tmp_path: Path, variable: str, value: str, problem: str
) -> None:
    with pytest.raises(SettingError) as caught:
        read_settings({}, {variable: value}, tmp_path / "none.toml")
    message = caught.value.message

    assert f"from {variable}: " in message
    assert problem in message


def test_a_bad_value_in_a_backend_names_the_file_and_its_table(tmp_path: Path) -> None:
    message = refused(tmp_path, '[backends.work]\nbase_url = "nowhere"', options={"mode": "work"})

    assert f"base_url from {tmp_path / 'config.toml'} [backends.work]: " in message


@pytest.mark.parametrize("text", ["model = []", "model = {}", "port = true", "model = 2026-01-01"])
def test_a_value_of_the_wrong_shape_is_an_error(tmp_path: Path, text: str) -> None:
    assert "config.toml" in refused(tmp_path, text)


@pytest.mark.parametrize("text", ["backends = 5", "[backends]\nwork = 5", "backends = []"])
def test_backends_must_be_tables(tmp_path: Path, text: str) -> None:
    assert "table" in refused(tmp_path, text)


def test_a_file_that_is_not_toml_is_an_error_that_names_it(tmp_path: Path) -> None:
    assert str(tmp_path / "config.toml") in refused(tmp_path, f'api_key = "{KEY}"\nmodel = ')


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    assert "config.toml" in refused(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "config.toml").mkdir()
    assert "config.toml" in refused(tmp_path)


# Secrets


@pytest.mark.parametrize("name", ["api_key", "token"])
def test_a_key_of_the_wrong_shape_is_never_shown(tmp_path: Path, name: str) -> None:
    assert name in refused(tmp_path, f'{name} = ["{KEY}"]')
    assert name in refused(tmp_path, f"{name} = {{ value = '{KEY}' }}")
    assert name in refused(tmp_path, f'{name} = ""')


def test_a_password_in_an_address_is_refused_and_never_shown(tmp_path: Path) -> None:
    for address in (f"http://me:{KEY}@host", f"http://{KEY}@host", f"ftp://me:{KEY}@host"):
        assert "base_url" in refused(tmp_path, ANYCLAUDE_BASE_URL=address)


def test_settings_never_print_a_secret(tmp_path: Path) -> None:
    settings = read(tmp_path, ANYCLAUDE_API_KEY=KEY, ANYCLAUDE_TOKEN=KEY)

    assert settings.api_key is not None
    assert settings.api_key.reveal() == KEY
    assert KEY not in repr(settings)
    assert KEY not in str(settings)
