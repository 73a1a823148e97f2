"""What the person has set stays theirs; what would send the client elsewhere does not."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.backend import ScriptedBackend
from tests.support.home import Home
from tests.support.script import in_order, results

OUR_FOLDERS = ("config", "state", "cache", "run")


def _env(ask: Ask, scripted: Scripted, *arguments: str, **environ: str) -> tuple[dict[str, str], str]:
    """The variables that a command of the model's sees, and what the launch said on stderr."""
    backend = scripted(in_order(chat.call("Bash", {"command": "env -0 | base64 -w0"}), chat.text("ok")))
    done = ask(backend, "x", "--allowedTools", "Bash", *arguments, **environ)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    return _variables(backend), done.stderr


def _variables(backend: ScriptedBackend) -> dict[str, str]:
    (result,) = results(backend.turns[-1].body)
    pairs = base64.b64decode(result["content"]).decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def _never(_: object) -> None:
    raise AssertionError("nobody is to ask here")


def _write(file: Path, settings: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(settings))


def test_the_persons_own_settings_option_is_merged_in(ask: Ask, scripted: Scripted) -> None:
    own = json.dumps(
        {"env": {"FOO": "bar", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, "permissions": {"deny": ["Edit"]}}
    )
    seen, _ = _env(ask, scripted, "--settings", own)
    assert seen["FOO"] == "bar"
    assert seen["ANTHROPIC_MODEL"] == "scripted"


def test_the_persons_own_settings_file_is_merged_in_too(ask: Ask, home: Home, scripted: Scripted) -> None:
    _write(home.root / "own.json", {"env": {"FOO": "from the file"}})
    seen, _ = _env(ask, scripted, f"--settings={home.root / 'own.json'}")
    assert seen["FOO"] == "from the file"


@pytest.mark.parametrize(
    "file", ["claude/settings.json", "project/.claude/settings.json", "project/.claude/settings.local.json"]
)
def test_settings_files_do_not_redirect_the_client_and_a_warning_names_them(
    ask: Ask, home: Home, scripted: Scripted, file: str
) -> None:
    elsewhere = scripted(_never)
    env = {"ANTHROPIC_BASE_URL": elsewhere.url, "ANTHROPIC_API_KEY": "key-of-the-person", "FOO": "bar"}
    _write(home.root / file, {"env": env})
    before = (home.root / file).read_bytes()
    seen, said = _env(ask, scripted)
    assert elsewhere.exchanges == []
    assert seen["FOO"] == "bar"
    assert seen["ANTHROPIC_BASE_URL"] != elsewhere.url
    assert "key-of-the-person" not in seen.values()
    assert f"anyclaude: {home.root / file} sets ANTHROPIC_BASE_URL; not used in this session" in said.splitlines()
    assert "key-of-the-person" not in said
    assert (home.root / file).read_bytes() == before


def test_a_model_in_the_persons_settings_does_not_hide_the_local_one(ask: Ask, home: Home, scripted: Scripted) -> None:
    _write(home.root / "claude" / "settings.json", {"model": "opus"})
    backend = scripted(in_order(chat.text("ok")))
    result = json.loads(ask(backend, "--output-format", "json", "x").stdout)
    assert list(result["modelUsage"]) == ["scripted"]
    assert backend.turns[0].body["model"] == "scripted"


def test_variables_that_would_redirect_the_client_reach_neither_it_nor_its_commands(
    ask: Ask, scripted: Scripted
) -> None:
    elsewhere = scripted(_never)
    redirecting = {
        "ANTHROPIC_BASE_URL": elsewhere.url,
        "ANTHROPIC_API_KEY": "key-of-the-person",
        "ANTHROPIC_AUTH_TOKEN": "token-of-the-person",
        "ANTHROPIC_MODEL": "model-of-the-person",
        "ANTHROPIC_CUSTOM_HEADERS": "x-person: header-of-the-person",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "AWS_BEARER_TOKEN_BEDROCK": "bearer-of-the-person",
    }
    seen, _ = _env(ask, scripted, **redirecting)
    assert elsewhere.exchanges == []
    assert not {"ANTHROPIC_CUSTOM_HEADERS", "CLAUDE_CODE_USE_BEDROCK", "AWS_BEARER_TOKEN_BEDROCK"} & seen.keys()
    assert not any("of-the-person" in value for value in seen.values())
    assert seen["ANTHROPIC_BASE_URL"] != elsewhere.url


def test_the_persons_other_variables_reach_commands(ask: Ask, scripted: Scripted) -> None:
    theirs = {"AWS_PROFILE": "work", "GH_TOKEN": "gh", "NO_PROXY": "intranet.example", "EDITOR": "vi"}
    seen, _ = _env(ask, scripted, **theirs)
    assert {name: seen[name] for name in ("AWS_PROFILE", "GH_TOKEN")} == {"AWS_PROFILE": "work", "GH_TOKEN": "gh"}
    assert seen["NO_PROXY"].split(",") == ["intranet.example", "127.0.0.1", "localhost", "::1"]


def test_a_proxy_does_not_stand_between_the_client_the_gateway_and_the_model(ask: Ask, scripted: Scripted) -> None:
    proxy = scripted(_never)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")
    seen, _ = _env(ask, scripted, **dict.fromkeys(names, proxy.url))
    assert proxy.exchanges == []
    assert seen["HTTPS_PROXY"] == proxy.url  # the person's commands may need it


def test_the_home_folder_stays_as_it_was(ask: Ask, home: Home, scripted: Scripted) -> None:
    person = home.root / "person"
    person.mkdir()
    backend = scripted(in_order(chat.text("ok")))
    assert ask(backend, "x", HOME=str(person)).returncode == 0
    assert list(person.rglob("*")) == []
    assert not (home.root / "claude" / "settings.json").exists()
    ours = {path.relative_to(home.root).parts[0] for path in home.root.rglob("*anyclaude*")}
    assert ours == set(OUR_FOLDERS)


def test_the_session_token_opens_nothing_but_the_model(ask: Ask, scripted: Scripted) -> None:
    """Every command of the model's inherits it."""
    command = (
        'for path in /v1/models /anyclaude/statistics /anyclaude/stop; do curl -s -o /dev/null -w "%{http_code} " '
        '-H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" $ANTHROPIC_BASE_URL$path; done'
    )
    backend = scripted(in_order(chat.call("Bash", {"command": command}), chat.text("ok")))
    ask(backend, "x", "--allowedTools", "Bash")
    assert results(backend.turns[-1].body)[0]["content"].split() == ["200", "401", "401"]
