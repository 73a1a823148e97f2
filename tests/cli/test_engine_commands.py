"""Commands to the engine as a person types them, with the real engine: that of the gateway, or one of their own."""

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from anyclaude.launch.recommend import this_machine
from tests.support.home import Home
from tests.support.model_folder import make_model
from tests.support.models import random_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "tiny-qwen3", "qwen3")


@contextmanager
def session(home: Home, model: Path, **environment: str) -> Generator[dict[str, str]]:
    """A launch that waits, and the client's settings."""
    with home.waiting_session("--model", f"mlx/{model}", **environment) as settings:
        yield settings


def ask(settings: dict[str, str], words: str) -> Any:
    body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": words}]}
    headers = {"authorization": f"Bearer {settings['ANTHROPIC_AUTH_TOKEN']}"}
    with httpx2.Client(trust_env=False, timeout=120) as client:
        answer = client.post(f"{settings['ANTHROPIC_BASE_URL']}/v1/messages", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def entries(home: Home) -> list[dict[str, Any]]:
    return json.loads(home.run("cache", "ls", "--json").stdout)["entries"]


def test_what_the_engine_keeps_is_listed_pinned_deleted_and_cleared(home: Home, model: Path) -> None:
    with session(home, model) as settings:
        assert settings["ANTHROPIC_MODEL"] == "tiny-qwen3"
        ask(settings, "one " * 20)
        (entry,) = entries(home)
        assert entry["n_tokens"] > 20
        digest = entry["digest"]
        assert home.run("cache", "pin", digest).returncode == 0
        assert [entry["is_pinned"] for entry in entries(home)] == [True]
        assert "pinned" in home.run("cache", "ls").stdout
        verified = home.run("cache", "verify")
        assert verified.returncode == 0
        assert "tiny-qwen3: the same with and without, " in verified.stdout
        assert json.loads(home.run("cache", "verify", "--json").stdout)["parity"][0]["holds"] is True
        assert home.run("cache", "unpin", digest).stdout == f"{digest} is kept like any other\n"
        assert [entry["is_pinned"] for entry in entries(home)] == [False]
        again = home.run("cache", "unpin", digest)
        assert again.returncode == 1
        assert "no pinned state has a digest" in again.stderr
        assert "deleted 1 blocks" in home.run("cache", "rm", digest).stdout
        assert entries(home) == []
        gone = home.run("cache", "rm", digest)
        assert gone.returncode == 1
        assert "`anyclaude cache ls` lists them" in gone.stderr

        ask(settings, "two " * 20)
        assert home.run("stats", "--turns", "--json").stdout.count('"id"') == 2
        asked = home.run("cache", "clear")
        assert asked.returncode == 2
        assert "anyclaude cache clear --yes" in asked.stderr
        assert home.run("cache", "clear", "--yes").returncode == 0
        assert entries(home) == []
        assert home.run("stats", "--turns", "--json").stdout.count('"id"') == 0
        assert [server["turns"] for server in home.status()] == [[]]
        ask(settings, "three " * 20)  # the ledger goes on
        assert home.run("stats", "--turns", "--json").stdout.count('"id"') == 1


def test_a_model_is_loaded_and_let_go_of_by_the_gateways_engine(home: Home, model: Path) -> None:
    without = home.run("models", "load", str(model))
    assert without.returncode == 1
    assert "no gateway runs" in without.stderr
    with session(home, model):
        assert "tiny-qwen3 is loaded" in home.run("models", "load", str(model)).stdout
        assert "engine  pid" in home.run("status").stdout
        broken = make_model(home.root / "broken")
        refused = home.run("models", "load", str(broken))
        assert refused.returncode == 1
        assert re.search(r"anyclaude: .*broken", refused.stderr)
        assert "Traceback" not in refused.stderr
        assert json.loads(home.run("models", "unload", "--json").stdout) == {"unloaded": [str(model)], "busy": []}
        assert "it was not in memory" in home.run("models", "unload", str(model)).stdout


def test_settings_reach_the_engine_that_a_launch_starts(home: Home, model: Path) -> None:
    with session(home, model, ANYCLAUDE_KV_MEMORY_MB="77", ANYCLAUDE_KV_DISK_MB="0") as settings:
        ask(settings, "hello")
        (gateway,) = home.status()
        arguments = psutil.Process(gateway["server"]["engine"]["pid"]).cmdline()
    options = json.loads(arguments[-1])
    assert options == {"kv_memory_mb": 77, "kv_disk_mb": 0, "kv_disk_days": 30, "kv_write_mb_a_day": 40_000}


def test_without_a_gateway_an_engine_of_its_own_answers(home: Home) -> None:
    done = home.run("cache", "ls")
    assert done.stdout == "the engine keeps no state of any prompt\n"
    assert done.stderr == "anyclaude: starting an engine for this command\n"
    verified = json.loads(home.run("cache", "verify", "--json").stdout)
    assert (verified["damaged"], verified["parity"]) == (0, [])
    assert home.run("cache", "verify").stdout.endswith("no model is loaded: files only\n")
    assert home.status() == []


def test_the_folder_of_the_cache_is_told_without_an_engine(home: Home) -> None:
    folder = home.root / "cache" / "anyclaude" / "engine"
    assert home.run("cache", "path").stdout == f"{folder}\n"
    assert json.loads(home.run("cache", "path", "--json").stdout) == {"folder": str(folder)}


def test_doctor_tries_the_engine_out_and_prints_a_report(home: Home, model: Path) -> None:
    done = home.run("doctor", "--engine")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the engine works on this machine" in done.stdout
    report = json.loads(home.run("doctor", "--engine", "--json", "--model", str(model)).stdout)
    assert (report["problems"], report["parity"]["equal_tokens"], report["model"]) == ([], True, str(model))
    hostile = make_model(home.root / "hostile", model_file="run.py")
    refused = home.run("doctor", "--engine", "--model", str(hostile))
    assert refused.returncode == 1
    assert "config.json has model_file" in refused.stderr


def test_doctor_tells_what_the_engine_has_to_work_with(home: Home) -> None:
    rows = json.loads(home.run("doctor", "--json").stdout)["findings"]
    found = [row for row in rows if row["topic"] == "engine"]
    assert "no model for the embedded engine is on this machine" in [row["what"] for row in found]
    assert any("anyclaude models pull" in row["do"] or "models recommend" in row["do"] for row in found)
    assert any("CPU" in row["what"] for row in found) == (this_machine(None).accelerator == "none")


def test_recommend_explains_itself_and_says_where_it_will_be_slow(home: Home) -> None:
    shown = home.run("models", "recommend", ANYCLAUDE_ENGINE_MEMORY_MB="40000").stdout
    assert "anyclaude models pull mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit" in shown
    assert "models and their state may take 40.0 GB" in shown
    assert ("it computes on the CPU" in shown) == (this_machine(None).accelerator == "none")
    assert "approximate" in shown
    none = home.run("models", "recommend", ANYCLAUDE_ENGINE_MEMORY_MB="4000").stdout
    assert "None of them has room" in none
