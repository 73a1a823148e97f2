"""`anyclaude models pull` as a person types it, against a hub on a real socket."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.home import Home
from tests.support.hub import ScriptedHub, files_of, scripted_hub
from tests.support.model_folder import make_model, safetensors
from tests.support.wait import wait_until

_PART = 3_000_000


@pytest.fixture
def hub(tmp_path_factory: pytest.TempPathFactory) -> Generator[ScriptedHub]:
    files = files_of(make_model(tmp_path_factory.mktemp("made") / "model"))
    extra = {"README.md": b"no", "run.py": b"no", "model.gguf": b"no", "consolidated.safetensors": b"no"}
    with scripted_hub("org/Tiny", files | extra) as running:
        yield running


def cache(home: Home) -> Path:
    return home.root / "cache" / "huggingface" / "hub"


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.name != "CACHEDIR.TAG")


def test_a_model_is_pulled_checked_listed_used_and_deleted(home: Home, hub: ScriptedHub) -> None:
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 0, done.stderr
    assert "org/Tiny is here: " in done.stdout
    assert "anyclaude --model mlx/org/Tiny" in done.stdout
    assert "GB to download" in done.stderr
    assert "\r" not in done.stderr
    assert {name for name, _ in hub.fetched} == {
        "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"
    }  # fmt: skip

    (row,) = json.loads(home.run("models", "ls", "--json").stdout)["models"]
    assert (row["model"], row["context_window"], row["used_at"], row["is_loaded"]) == ("org/Tiny", 40960, None, False)
    assert "org/Tiny" in home.run("models", "ls").stdout
    shown = json.loads(home.run("models", "--json", "--mode", "mlx").stdout)["models"]
    assert [(row["model"], row["server"]) for row in shown] == [("mlx/org/Tiny", "mlx")]
    plan = home.run("--model", "mlx/org/Tiny", "--dry-run")
    assert '"ANTHROPIC_MODEL": "Tiny"' in plan.stdout

    again = home.run("models", "pull", "org/Tiny", "--json", **hub.environment())
    assert json.loads(again.stdout)["downloaded_bytes"] == 0
    asked = home.run("models", "rm", "org/Tiny")
    assert asked.returncode == 2
    assert "anyclaude models rm org/Tiny --yes" in asked.stderr
    gone = home.run("models", "rm", "mlx/org/Tiny", "--yes")
    assert (gone.returncode, gone.stderr) == (0, "")
    assert everything_in(cache(home)) == []


def test_what_was_broken_off_goes_on_where_it_stopped(home: Home, hub: ScriptedHub) -> None:
    hub.files["model.safetensors"] = safetensors(_PART * 2)
    hub.waits["model.safetensors"] = _PART
    process = home.start("models", "pull", "org/Tiny", **hub.environment())
    assert hub.is_waiting.wait(60)
    blobs = cache(home) / "models--org--Tiny" / "blobs"
    _wait_for_bytes(blobs, _PART)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "broken off; what came is kept, and the same command goes on where this one stopped" in errors
    assert "Traceback" not in errors
    assert json.loads(home.run("models", "ls", "--json").stdout)["models"] == []
    assert "is not on this machine" in home.run("--model", "mlx/org/Tiny", "--dry-run").stderr

    hub.waits.clear()
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 0, done.stderr
    assert hub.fetched[-1] == ("model.safetensors", f"bytes={_PART}-")


def _wait_for_bytes(blobs: Path, n_bytes: int) -> None:
    wait_until(
        lambda: any(path.stat().st_size >= n_bytes for path in blobs.glob("*.incomplete")), "the first piece is written"
    )


def test_a_connection_that_breaks_in_the_middle_is_taken_up_again(home: Home, hub: ScriptedHub) -> None:
    hub.files["model.safetensors"] = safetensors(_PART * 2)
    hub.breaks["model.safetensors"] = [_PART]
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 0, done.stderr
    assert hub.fetched[-1] == ("model.safetensors", f"bytes={_PART}-")


def test_a_model_that_was_broken_off_can_be_deleted(home: Home, hub: ScriptedHub) -> None:
    assert home.run("models", "pull", "org/Tiny", **hub.environment()).returncode == 0
    snapshots = cache(home) / "models--org--Tiny" / "snapshots"
    next(snapshots.glob("*/model.safetensors")).unlink()
    assert home.run("models", "rm", "org/Tiny", "--yes").returncode == 0
    assert everything_in(cache(home)) == []


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        ((404, "RepoNotFound"), "has no model org/Tiny, or shows it to others only"),
        ((401, ""), "has no model org/Tiny, or shows it to others only"),
        ((403, "GatedRepo"), "has terms to accept first"),
        ((500, ""), "answered HTTP 500 for org/Tiny; the same command goes on"),
    ],
)
def test_a_refusal_of_the_hub_is_one_sentence_with_what_to_do(
    home: Home, hub: ScriptedHub, refusal: tuple[int, str], words: str
) -> None:
    hub.refuses = refusal
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert everything_in(cache(home)) == []


def test_offline_is_respected_and_said(home: Home, hub: ScriptedHub) -> None:
    done = home.run("models", "pull", "org/Tiny", HF_HUB_OFFLINE="1", **hub.environment())
    assert done.returncode == 1
    assert "because HF_HUB_OFFLINE is set" in done.stderr
    assert hub.asked == []


def test_a_hub_that_does_not_answer_is_named(home: Home) -> None:
    done = home.run("models", "pull", "org/Tiny", HF_ENDPOINT="http://127.0.0.1:1")
    assert done.returncode == 1
    assert "http://127.0.0.1:1 cannot be reached" in done.stderr


def test_the_persons_token_goes_to_the_hub_and_into_no_output(home: Home, hub: ScriptedHub) -> None:
    done = home.run("models", "pull", "org/Tiny", HF_TOKEN="hf_secretword", **hub.environment())
    assert {headers.get("authorization") for _, _, headers in hub.asked} == {"Bearer hf_secretword"}
    assert "hf_secretword" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b'{"model_type": "x", "model_file": "run.py"}', "config.json has model_file"),
        ("config.json", b'{"model_type": "x", "auto_map": {"AutoModel": "run.M"}}', "config.json has auto_map"),
        ("tokenizer.json", None, "it has no tokenizer.json"),
        ("model.safetensors", None, "has no weights as safetensors"),
    ],
)
def test_a_model_that_would_be_refused_costs_no_weights_and_leaves_nothing(
    home: Home, hub: ScriptedHub, name: str, content: bytes | None, words: str
) -> None:
    if content is None:
        del hub.files[name]
    else:
        hub.files[name] = content
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 1
    assert words in done.stderr
    assert "model.safetensors" not in [name for name, _ in hub.fetched]
    assert everything_in(cache(home)) == []


def test_weights_that_lie_are_refused_and_leave_nothing(home: Home, hub: ScriptedHub) -> None:
    hub.files["model.safetensors"] = safetensors(100)[:-1]
    done = home.run("models", "pull", "org/Tiny", **hub.environment())
    assert done.returncode == 1
    assert "it was cut off: download it again" in done.stderr
    assert everything_in(cache(home)) == []


@pytest.mark.parametrize("name", ["a/b/c", "a:b", "../x"])
def test_what_is_no_hub_id_is_not_asked_for(home: Home, hub: ScriptedHub, name: str) -> None:
    done = home.run("models", "pull", name, **hub.environment())
    assert done.returncode == 1
    assert "is no hub id" in done.stderr
    assert hub.asked == []


def test_on_a_terminal_progress_stays_on_its_line(home: Home) -> None:
    reading, writing = pty.openpty()
    program = "import sys; from anyclaude.cli.pull import Shown; shown = Shown(sys.stderr); shown.begin(100)"
    program += "; shown._shown_at -= 1; shown.add(50); shown.end()"
    subprocess.run([sys.executable, "-c", program], stderr=writing, check=True, env=home.environment)
    os.close(writing)
    assert b"\r\x1b[K0.00 of 0.00 GB (50%)" in os.read(reading, 10_000)
    os.close(reading)


def test_a_folder_of_the_persons_own_is_never_deleted(home: Home, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    done = home.run("models", "rm", str(folder), "--yes")
    assert done.returncode == 2
    assert "it is not anyclaude's to delete" in done.stderr
    assert (folder / "model.safetensors").exists()
