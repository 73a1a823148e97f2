"""Every command as a person types it: output, messages, exit status."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from anyclaude.backends.kinds import KINDS
from anyclaude.config.table import SETTINGS
from anyclaude.launch.arguments import WORDS
from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.home import Home
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]
HEAVY = (
    *("transformers", "mlx", "mlx_lm", "llguidance", "tokenizers", "numpy", "jinja2", "huggingface_hub"),
    *("starlette", "uvicorn", "httpx2", "psutil", "platformdirs"),
)


def ok(exchange: Exchange) -> None:
    exchange.answer(chat.text("ok"))


def test_help_names_every_word_option_and_mode(home: Home) -> None:
    shown = home.run("--help").stdout
    for name in (*WORDS, *KINDS, *(f"--{setting.option}" for setting in SETTINGS if setting.option)):
        assert name in shown
    assert shown == home.run("-h").stdout == home.run("serve", "--help").stdout


def test_help_loads_nothing_heavy() -> None:
    program = "import sys; from anyclaude.cli.main import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "anyclaude.cli.help" in done.stderr.split()
    assert not set(HEAVY) & set(done.stderr.split())


def test_version_tells_ours_and_the_clients(home: Home) -> None:
    shown = home.run("--version").stdout
    assert shown.startswith("anyclaude 0.")
    assert "Claude Code 2." in shown
    without = home.run("--version", ANYCLAUDE_CLIENT="/nowhere/claude")
    assert without.returncode == 0
    assert "not an executable" in without.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--mode", "olama"], 2, "did you mean 'ollama'"),
        (["--mode", "openai"], 2, "needs an address"),
        (["--mode", "openrouter"], 2, "needs a key"),
        (["--mode", "ollama", "--base-url", "http://127.0.0.1:1"], 1, "ollama serve"),
        (["--base-url", "http://127.0.0.1:1"], 1, "no model server answers at http://127.0.0.1:1"),
        (["--base-url", "ftp://x"], 2, "must be a URL"),
        (["--base-url", "http://user:secret-word@127.0.0.1"], 2, "use api_key"),
        (["--model"], 2, "--model needs a value"),
        (["--port", "x"], 2, "port from --port: must be a whole number"),
        (["--debug=loud"], 2, "must be one of warning, info, debug"),
        (["status", "--bogus"], 2, "does not know --bogus"),
        (["stop", "--dry-run"], 2, "does not know --dry-run"),
        (["serve", "--no-launch"], 2, "does not know --no-launch"),
        (["help"], 2, "did you mean `anyclaude --help`"),
        (["statsu"], 2, "did you mean `stats` or `status`"),
        (["--base-url", "http://127.0.0.1:99999"], 2, "Port out of range"),
        (["--base-url", "http://127.0.0.1:80?x=1"], 2, "without ? and #"),
        (["--base-url", "http://127.0.0.1:1"], 1, "connection refused"),
        (["--host", "0.0.0.0"], 2, "--host is for `anyclaude serve`"),
    ],
)
def test_a_mistake_is_one_message_with_what_to_do(home: Home, arguments: list[str], status: int, words: str) -> None:
    done = home.run(*arguments)
    assert done.returncode == status
    assert done.stderr.startswith("anyclaude: ")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert "secret-word" not in done.stderr


def test_a_missing_client_is_said_with_how_to_install_it(home: Home, scripted: Start) -> None:
    url = scripted(ok).url
    done = home.run("--base-url", url, ANYCLAUDE_CLIENT="/nowhere/claude")
    assert done.returncode == 127
    assert "not an executable file" in done.stderr


def test_a_missing_model_is_named_with_the_nearest_one(home: Home) -> None:
    def listing(exchange: Exchange) -> None:
        exchange.json(404, {})

    with ScriptedBackend(listing, model="qwen3-coder") as backend:
        backend.extra = {"owned_by": "vllm"}
        done = home.run("--mode", "vllm", "--base-url", backend.url, "--model", "qwen-coder", "--dry-run")
    assert done.returncode == 1
    assert "has no model 'qwen-coder'. Did you mean qwen3-coder?" in done.stderr


def test_a_dry_run_shows_everything_and_starts_nothing(home: Home, scripted: Start) -> None:
    url = scripted(ok).url
    done = home.run(
        "--base-url", url, "--dry-run", "-p", "two words",
        ANTHROPIC_BASE_URL="http://elsewhere", ANYCLAUDE_API_KEY="secret-key",
    )  # fmt: skip
    assert done.returncode == 0
    assert "-p 'two words'" in done.stdout
    assert "ANTHROPIC_BASE_URL" in done.stdout.split("OVERLAY, a private file")[0]
    assert '"CLAUDE_CODE_MAX_CONTEXT_TOKENS": "200000"' in done.stdout
    assert "secret-key" not in done.stdout + done.stderr
    assert home.status() == []


def test_mode_claude_without_a_key_becomes_the_client_with_nothing_of_ours(home: Home) -> None:
    client = home.root / "client.sh"
    client.write_text('#!/bin/sh\necho "$@"; env | grep ^ANTHROPIC_\n')
    client.chmod(0o700)
    done = home.run("--mode", "claude", "-p", "x", ANYCLAUDE_CLIENT=str(client), ANTHROPIC_API_KEY="theirs")
    assert done.stdout == "-p x\nANTHROPIC_API_KEY=theirs\n"
    assert home.status() == []


def test_a_word_of_the_clients_runs_without_gateway_and_overlay_and_reports_to_nobody(home: Home) -> None:
    done = home.run("mcp", "list")
    assert not (home.root / "claude" / "telemetry").exists()
    assert done.returncode == 0
    assert "No MCP servers" in done.stdout
    assert home.run("mcp", "--help").stdout.startswith("Usage: claude mcp")
    assert home.status() == []


def test_config_tells_each_value_and_its_source(home: Home) -> None:
    home.run("config")
    file = home.root / "config" / "anyclaude" / "config.toml"
    file.write_text('model = "from-file"\nport = 4117\n[backends.work]\nkind = "vllm"\nmodel = "from-backend"\n')
    shown = json.loads(home.run("config", "--json", ANYCLAUDE_MODE="work", ANYCLAUDE_PORT="4118").stdout)
    values = {row["name"]: (row["value"], row["source"]) for row in shown["settings"]}
    assert values["model"] == ("from-backend", f"{file} [backends.work]")
    assert values["port"] == (4118, "ANYCLAUDE_PORT")
    assert values["mode"] == ("work", "ANYCLAUDE_MODE")
    assert values["host"] == ("127.0.0.1", "default")
    secret = home.run("config", ANYCLAUDE_API_KEY="secret-key")
    assert "secret-key" not in secret.stdout + secret.stderr


def test_an_address_given_for_one_launch_sets_the_files_backend_and_its_key_aside(home: Home, scripted: Start) -> None:
    home.run("config")
    file = home.root / "config" / "anyclaude" / "config.toml"
    file.write_text(
        'mode = "box"\n[backends.box]\nkind = "vllm"\nbase_url = "http://127.0.0.1:1"\napi_key = "k-secret"\n'
    )
    backend = scripted(ok)
    done = home.run("--base-url", backend.url, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "scripted on OpenAI-compatible server" in done.stderr
    assert all("k-secret" not in str(exchange.headers) for exchange in backend.exchanges)


def test_a_wrong_key_is_said_so_where_only_an_address_was_given(home: Home) -> None:
    with ScriptedBackend(ok) as backend:
        backend.get = lambda exchange: exchange.json(401, {"error": {"message": "no"}})  # type: ignore[method-assign]
        done = home.run("--base-url", backend.url)
    assert "HTTP 401 for /v1/models (the key is missing or wrong)" in done.stderr


def test_models_lists_what_the_server_has(home: Home, scripted: Start) -> None:
    url = scripted(ok).url
    shown = json.loads(home.run("models", "--json", ANYCLAUDE_BASE_URL=url).stdout)["models"]
    assert [(row["model"], row["context_window"], row["server"]) for row in shown] == [("scripted", 200_000, "openai")]


def test_doctor_finds_what_would_keep_a_launch_from_working(home: Home, scripted: Start) -> None:
    settings = home.root / "claude" / "settings.json"
    settings.write_text(json.dumps({"env": {"ANTHROPIC_BASE_URL": "http://elsewhere"}, "model": "scripted"}))
    good = home.run("doctor", "--json", ANYCLAUDE_BASE_URL=scripted(ok).url, ANYCLAUDE_MODLE="x")
    rows = json.loads(good.stdout)["findings"]
    assert "plain `claude` asks for scripted, a model of yours" in [row["what"] for row in rows]
    findings = {(row["topic"], row["level"]): row["what"] for row in rows}
    assert good.returncode == 0
    assert "1 model(s)" in findings["backend", "ok"]
    assert "2.1." in findings["client", "ok"]
    assert "ANTHROPIC_BASE_URL" in findings["settings", "note"]
    assert "ANYCLAUDE_MODLE" in findings["environment", "note"]
    assert "GiB free" in findings.get(("memory", "ok"), findings.get(("memory", "note"), ""))
    bad = home.run("doctor", ANYCLAUDE_BASE_URL="http://127.0.0.1:1", ANYCLAUDE_CLIENT="/nowhere")
    assert bad.returncode == 1
    assert bad.stdout.count("problem") == 2


def test_serve_prints_where_it_is_and_answers_until_it_is_stopped(home: Home, scripted: Start) -> None:
    url = scripted(ok).url
    process = home.start("serve", "--json", "--base-url", url)
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line
        text += line
    door = json.loads(text)
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}
    with httpx2.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{door['url']}/v1/messages", json=body, headers={"x-api-key": door["token"]})
    assert answer.json()["content"][0]["text"] == "ok"
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert "openai scripted: prompt 1000 cached 900" in errors
    assert process.returncode in (0, -15)


def test_serve_refuses_other_machines_without_a_token_of_the_persons(home: Home, scripted: Start) -> None:
    url = scripted(ok).url
    done = home.run("serve", "--host", "0.0.0.0", "--base-url", url)
    assert done.returncode == 2
    assert "set a token first" in done.stderr
    taken = url.rpartition(":")[2]
    busy = home.run("serve", "--port", taken, "--base-url", url)
    assert busy.returncode == 1
    assert "try another --port" in busy.stderr


def test_serve_on_every_address_asks_for_the_persons_token(home: Home, scripted: Start) -> None:
    process = home.start(
        "serve", "--host", "0.0.0.0", "--base-url", scripted(ok).url, ANYCLAUDE_TOKEN="chosen-token-word"
    )
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    url = next(line for line in lines if line.startswith("ANTHROPIC_BASE_URL=")).strip().partition("=")[2]
    port = url.rpartition(":")[2]
    with httpx2.Client(trust_env=False, timeout=60) as client:
        found = f"http://127.0.0.1:{port}/v1/models"
        assert client.get(found).status_code == 401
        assert client.get(found, headers={"x-api-key": "chosen-token-word"}).status_code == 200
        assert client.get(found, headers={"x-api-key": "chosen-token-word", "host": "evil.example"}).status_code == 403
    process.terminate()
    process.communicate(timeout=60)


def test_logs_follows_across_a_rotation(home: Home) -> None:
    home.run("config")
    log = home.state / "server.log"
    log.write_text("first line\n")
    process = home.start("logs", "-f")
    assert process.stdout is not None
    assert process.stdout.readline() == "first line\n"
    with log.open("a") as file:
        file.write("second line\n")
    assert process.stdout.readline() == "second line\n"
    log.rename(Path(f"{log}.1"))
    log.write_text("after the rotation\n")
    assert process.stdout.readline() == "after the rotation\n"
    process.terminate()
    process.communicate(timeout=60)


def test_a_reader_that_has_enough_ends_the_command_quietly(home: Home) -> None:
    shell = f"{sys.executable} -m anyclaude --help | head -1"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, env=home.environment, check=False)
    assert done.stdout.startswith("anyclaude: Claude Code on models")
    assert done.stderr == ""


def test_status_shows_a_session_and_its_turns(home: Home, scripted: Start) -> None:
    process = home.start("--no-launch", "--base-url", scripted(ok).url)
    assert process.stdout is not None
    wait_until(lambda: home.status(), "the gateway runs")
    shown = home.run("status").stdout
    assert "scripted on openai at" in shown
    assert str(home.project) in shown
    process.terminate()
    process.communicate(timeout=60)


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_an_output_that_cannot_be_written_is_one_message(home: Home, redirected: str) -> None:
    command = f"exec {sys.executable} -m anyclaude config {redirected}"
    done = subprocess.run(["sh", "-c", command], env=home.environment, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode in ((1,) if redirected == ">/dev/full" else (0, 1))
