import json
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.seam import Target
from anyclaude.errors import UsageError
from anyclaude.launch.choice import Choice
from anyclaude.launch.overlay import Door, merged, overlay, read_settings_option, take_settings, with_redirects_blank

DOOR = Door("http://127.0.0.1:4000", "session-token")
TARGET = Target(
    kind="vllm", base_url="http://gpu:8000", model="Qwen/Q", models=("Qwen/Q", "other"), max_output_tokens=8192
)


def made(choice: Choice, *, no_proxy: str = "localhost") -> dict[str, Any]:
    return overlay(DOOR, choice, no_proxy=no_proxy)


def test_the_client_is_sent_to_the_gateway_with_its_token() -> None:
    env = made(Choice(TARGET, "Qwen/Q", 65536))["env"]

    assert env["ANTHROPIC_BASE_URL"] == DOOR.url
    assert env["ANTHROPIC_AUTH_TOKEN"] == DOOR.token
    assert env["NO_PROXY"] == env["no_proxy"] == "localhost"
    assert env["API_TIMEOUT_MS"] == "1800000"


def test_every_variable_is_text_as_the_client_wants_it() -> None:
    env = made(Choice(TARGET, "Qwen/Q", 65536))["env"]

    assert all(isinstance(value, str) for value in env.values())
    assert json.loads(json.dumps(env)) == env


def test_every_tier_of_the_client_is_the_persons_own_model() -> None:
    env = made(Choice(TARGET, "Qwen/Q", 65536))["env"]
    names = [name for name in env if name.endswith("_MODEL")]

    assert {env[name] for name in names} == {"Qwen/Q"}
    assert {"ANTHROPIC_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"} <= set(names)
    assert env["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "65536"
    assert env["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "8192"
    assert env["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"


def test_the_picker_offers_each_model_once_and_the_chosen_first() -> None:
    picker = made(Choice(TARGET, "mine", 65536))["modelPicker"]

    assert picker["replaceBuiltInOptions"] is True
    assert [option["model"] for option in picker["options"]] == ["mine", "Qwen/Q", "other"]
    assert {option["description"] for option in picker["options"]} == {"vLLM at http://gpu:8000"}


def test_without_a_model_of_the_persons_own_the_clients_names_stay() -> None:
    fields = made(Choice(Target(kind="claude", base_url="https://api.anthropic.com"), None, 200000))

    assert "modelPicker" not in fields
    assert not [name for name in fields["env"] if "MODEL" in name]
    assert "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC" not in fields["env"]


def test_auto_mode_is_off_because_nobody_checks_for_it() -> None:
    assert made(Choice(TARGET, "m", 1))["permissions"] == {"disableAutoMode": "disable"}


def test_settings_are_merged_table_by_table_and_ours_win() -> None:
    theirs = {"env": {"A": "1", "B": "1"}, "permissions": {"allow": ["Bash"]}, "theme": "dark", "x": {"y": 1}}
    ours = {"env": {"B": "2", "C": "2"}, "permissions": {"disableAutoMode": "disable"}, "x": 5}

    assert merged(theirs, ours) == {
        "env": {"A": "1", "B": "2", "C": "2"},
        "permissions": {"allow": ["Bash"], "disableAutoMode": "disable"},
        "theme": "dark",
        "x": 5,
    }
    assert theirs["env"] == {"A": "1", "B": "1"}


def test_a_list_is_replaced_and_not_joined() -> None:
    assert merged({"a": [1]}, {"a": [2]}) == {"a": [2]}
    assert merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert merged({}, {}) == {}


def test_redirects_of_other_files_are_set_to_nothing_save_ours() -> None:
    fields = {"env": {"ANTHROPIC_BASE_URL": "ours"}, "theme": "dark"}

    assert with_redirects_blank(fields, ["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"]) == {
        "env": {"ANTHROPIC_BASE_URL": "ours", "ANTHROPIC_API_KEY": ""},
        "theme": "dark",
    }


def test_the_persons_settings_are_taken_out_of_the_arguments() -> None:
    theirs, rest = take_settings(["-p", "--settings", '{"theme":"dark"}', "hi", '--settings={"a":1}', "--verbose"])

    assert theirs == {"theme": "dark", "a": 1}
    assert rest == ("-p", "hi", "--verbose")


def test_a_later_settings_option_wins_over_an_earlier_one() -> None:
    theirs, _ = take_settings(["--settings", '{"env":{"A":"1","B":"1"}}', "--settings", '{"env":{"B":"2"}}'])

    assert theirs == {"env": {"A": "1", "B": "2"}}


def test_what_would_redirect_the_client_is_taken_out_of_the_persons_settings() -> None:
    given = {"env": {"ANTHROPIC_BASE_URL": "https://x", "CLAUDE_CODE_USE_BEDROCK": "1", "AWS_PROFILE": "p"}}

    theirs, _ = take_settings(["--settings", json.dumps(given)])

    assert theirs == {"env": {"AWS_PROFILE": "p"}}


def test_without_settings_the_arguments_stay_as_they_are() -> None:
    assert take_settings(["-p", "x", "--setting-sources", "user"]) == ({}, ("-p", "x", "--setting-sources", "user"))


def test_settings_are_read_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.json").write_text('{"theme":"dark"}', "utf-8")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert read_settings_option(str(tmp_path / "s.json")) == {"theme": "dark"}
    assert read_settings_option("~/s.json") == {"theme": "dark"}


@pytest.mark.parametrize("text", ['{"a":', "[]", '"x"', "nothing"])
def test_settings_that_are_no_object_are_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.json").write_text(text, "utf-8")

    with pytest.raises(UsageError, match="--settings"):
        read_settings_option(str(tmp_path / "s.json"))


@pytest.mark.parametrize(
    "given",
    ['{"a":', " {nonsense}", "/no/such/file", "~no-such-user-of-ours/s.json", "a\0b", '{"a":' * 100_000],
    ids=["cut", "nonsense", "no file", "no home", "no path", "too deep"],
)
def test_settings_that_cannot_be_read_are_an_error(given: str) -> None:
    with pytest.raises(UsageError, match="--settings"):
        read_settings_option(given)


def test_a_settings_option_without_a_value_is_an_error() -> None:
    with pytest.raises(UsageError, match="--settings needs a value"):
        take_settings(["-p", "--settings"])
