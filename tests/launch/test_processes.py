"""Supervisor, server and sessions as processes: who starts whom, who outlives whom, and what a crash costs."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

import anyclaude
from tests.support import chat
from tests.support.backend import Script, ScriptedBackend
from tests.support.home import Home
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]


@contextmanager
def waiting_session(home: Home, backend: ScriptedBackend, **environment: str) -> Generator[dict[str, str]]:
    """`--no-launch`: a session that lasts as long as its process, and the settings that it printed."""
    with home.waiting_session("--mode", "openai", "--base-url", backend.url, **environment) as settings:
        yield settings


def ask(settings: dict[str, str], words: str = "hello") -> Any:
    body = {"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": words}]}
    headers = {"authorization": f"Bearer {settings['ANTHROPIC_AUTH_TOKEN']}"}
    url = f"{settings['ANTHROPIC_BASE_URL']}/v1/messages"
    with httpx2.Client(trust_env=False, timeout=60) as client:
        return client.post(url, json=body, headers=headers)


def words_of(answer: Any) -> str:
    assert answer.status_code == 200, answer.text
    return answer.json()["content"][0]["text"]


def server_process(home: Home) -> psutil.Process:
    """The server, a child of the supervisor that `status` names."""
    (supervisor,) = [psutil.Process(server["pid"]) for server in home.status()]
    wait_until(supervisor.children, "the supervisor has a server")
    return supervisor.children()[0]


def shell_client(home: Home, script: str) -> dict[str, str]:
    """A stand-in for the client, where only the process that anyclaude becomes matters."""
    path = home.root / "client.sh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return {"ANYCLAUDE_CLIENT": str(path)}


def launch(
    home: Home, backend: ScriptedBackend, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return home.run("--mode", "openai", "--base-url", backend.url, *arguments, **environment)


def ok(exchange: Any) -> None:
    exchange.answer(chat.text("ok"))


def test_a_launch_in_a_command_substitution_returns_while_the_cold_server_lives_on(home: Home, scripted: Start) -> None:
    answer = launch(home, scripted(ok), **shell_client(home, "echo from the client"))
    assert answer.stdout == "from the client\n"  # run() returned, so nobody holds the pipe's other end
    assert psutil.Process(home.status()[0]["pid"]).is_running()


def test_the_server_lives_away_from_the_terminal(home: Home, scripted: Start) -> None:
    launch(home, scripted(ok), **shell_client(home, "true"))
    server = server_process(home)
    for process in (server, server.parent()):
        assert process is not None
        assert process.cwd() == "/"
        assert os.getsid(process.pid) != os.getsid(0)
        assert not any(name.startswith("ANYCLAUDE_") for name in process.environ())
        if sys.platform == "linux":
            ends = [str(Path(f"/proc/{process.pid}/fd/{number}").readlink()) for number in (1, 2)]
            assert ends == [str(home.state / "server.err")] * 2


def test_the_launcher_becomes_the_client_with_its_exit_status(home: Home, scripted: Start) -> None:
    answer = launch(home, scripted(ok), **shell_client(home, "exit 7"))
    assert answer.returncode == 7
    killed = launch(home, scripted(ok), **shell_client(home, "kill -TERM $$"))
    assert killed.returncode == -signal.SIGTERM


def test_yes_piped_into_head_is_quiet_inside_the_client(home: Home, scripted: Start) -> None:
    answer = launch(home, scripted(ok), **shell_client(home, "yes | head -1"))
    assert answer.stdout == "y\n"
    assert "roken pipe" not in answer.stderr


def test_arguments_reach_the_client_unchanged(home: Home, scripted: Start) -> None:
    client = shell_client(home, 'for argument in "$@"; do printf "%s\\n" "[$argument]"; done')
    answer = launch(home, scripted(ok), "-p", "two words", "--", "--model", "theirs", "", **client)
    options, *rest = answer.stdout.splitlines()[0], *answer.stdout.splitlines()[2:]
    assert options == "[--settings]"
    assert rest == ["[-p]", "[two words]", "[--model]", "[theirs]", "[]"]


def test_kill_of_the_server_in_mid_session_costs_one_try(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    with waiting_session(home, backend) as settings:
        assert words_of(ask(settings)) == "ok"
        for _ in range(3):
            before = server_process(home)
            before.kill()
            before.wait(60)
            assert words_of(ask(settings)) == "ok"  # the same port, the same token
            assert server_process(home).pid != before.pid


def test_two_terminals_use_two_backends_at_once(home: Home, scripted: Start) -> None:
    one, two = scripted(lambda e: e.answer(chat.text("one"))), scripted(lambda e: e.answer(chat.text("two")))
    with waiting_session(home, one) as first, waiting_session(home, two) as second:
        assert first["ANTHROPIC_BASE_URL"] == second["ANTHROPIC_BASE_URL"]
        assert [words_of(ask(first)), words_of(ask(second)), words_of(ask(first))] == ["one", "two", "one"]


def test_launches_at_the_same_moment_share_one_server(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    client = shell_client(home, "true")
    launched = [home.start("--mode", "openai", "--base-url", backend.url, **client) for _ in range(5)]
    for process in launched:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert len(home.status()) == 1


def test_an_older_server_drains_when_a_newer_version_starts(home: Home, scripted: Start, tmp_path: Path) -> None:
    older = tmp_path / "older" / "anyclaude"
    shutil.copytree(Path(anyclaude.__file__).parent, older)
    init = older / "__init__.py"
    init.write_text(re.sub(r'__version__ = ".*"', '__version__ = "0.0.9"', init.read_text()))
    backend = scripted(ok)
    with waiting_session(home, backend, PYTHONPATH=str(older.parent)) as settings:
        old = psutil.Process(home.status()[0]["pid"])
        launch(home, backend, **shell_client(home, "true"))
        versions = {server["server"]["version"]: server["server"]["is_draining"] for server in home.status()}
        assert versions == {"0.0.9": True, anyclaude.__version__: False}
        assert words_of(ask(settings)) == "ok"  # its client is served to the end
    old.wait(60)
    assert [server["server"]["version"] for server in home.status()] == [anyclaude.__version__]


def test_a_server_without_sessions_stops_after_a_quiet_time(home: Home, scripted: Start) -> None:
    launch(home, scripted(ok), ANYCLAUDE_IDLE_STOP_S="0.1", **shell_client(home, "true"))
    wait_until(lambda: home.status() == [], "the quiet server has stopped")
    assert list(home.runtime.glob("server-*.json")) == []


def test_a_server_with_a_session_does_not_stop(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    with waiting_session(home, backend, ANYCLAUDE_IDLE_STOP_S="0.1") as settings:
        pid = server_process(home).pid
        assert words_of(ask(settings)) == "ok"
        with pytest.raises(psutil.TimeoutExpired):
            psutil.Process(pid).wait(5)  # longer than two sweeps
    wait_until(lambda: not psutil.pid_exists(pid), "the server has stopped after its session")


def test_the_token_of_a_session_ends_with_its_client(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    with waiting_session(home, backend) as settings:
        assert ask(settings).status_code == 200
    wait_until(lambda: ask(settings).status_code == 401, "the token of an ended session is refused")
    assert list((home.runtime / "sessions").iterdir()) == []


def test_stop_asks_before_it_ends_a_running_session(home: Home, scripted: Start) -> None:
    with waiting_session(home, scripted(ok)) as settings:
        refused = home.run("stop")
        assert refused.returncode == 2
        assert settings["pid"] in refused.stderr
        assert home.run("stop", "--force").stdout == "stopped\n"
        assert home.status() == []
    assert home.run("stop").stdout == "no gateway is running\n"


def test_an_end_of_the_supervisor_by_signal_ends_the_server(home: Home, scripted: Start) -> None:
    launch(home, scripted(ok), **shell_client(home, "true"))
    server = server_process(home)
    supervisor = server.parent()
    assert supervisor is not None
    supervisor.terminate()
    supervisor.wait(60)
    wait_until(lambda: not server.is_running(), "the server has ended with its supervisor")
    assert list(home.runtime.glob("server-*.json")) == []


def test_after_the_supervisor_was_killed_the_server_goes_on_and_is_found(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    with waiting_session(home, backend) as settings:
        server = server_process(home)
        supervisor = server.parent()
        assert supervisor is not None
        supervisor.kill()
        wait_until(lambda: [found["pid"] for found in home.status()] == [server.pid], "the server took its place")
        assert words_of(ask(settings)) == "ok"
        with waiting_session(home, backend) as second:
            assert second["ANTHROPIC_BASE_URL"] == settings["ANTHROPIC_BASE_URL"]
        assert home.run("stop", "--force").stdout == "stopped\n"
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE  # nobody waits for an orphan here
    assert list(home.runtime.glob("server-*.json")) == []


def test_a_session_that_has_just_ended_does_not_hold_up_stop(home: Home, scripted: Start) -> None:
    launch(home, scripted(ok), **shell_client(home, "true"))
    assert home.run("stop").stdout == "stopped\n"


def test_our_secrets_do_not_reach_what_the_model_runs(home: Home, scripted: Start) -> None:
    secrets = {"ANYCLAUDE_API_KEY": "secret-key", "ANYCLAUDE_TOKEN": "secret-token"}
    answer = launch(home, scripted(ok), **shell_client(home, "env"), **secrets)
    assert "secret-" not in answer.stdout
    assert "GH_TOKEN=theirs" in launch(home, scripted(ok), GH_TOKEN="theirs", **shell_client(home, "env")).stdout


def test_the_settings_of_a_launch_are_private_and_go_when_it_is_gone(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    client = shell_client(home, 'cat "$2"; ls -l "$2"; tr "\\0" " " </proc/$$/cmdline')
    answer = launch(home, backend, **client)
    overlay, _ = json.JSONDecoder().raw_decode(answer.stdout)
    token = overlay["env"]["ANTHROPIC_AUTH_TOKEN"]
    assert "-rw-------" in answer.stdout
    assert answer.stdout.count(token) == 1  # in the file, and not on the command line
    overlays = list((home.runtime / "overlays").iterdir())
    assert len(overlays) == 1
    launch(home, backend, **shell_client(home, "true"))
    assert len(list((home.runtime / "overlays").iterdir())) == 1
    assert not overlays[0].exists()


def test_everything_that_is_written_is_private_and_below_our_folders(home: Home, scripted: Start) -> None:
    with waiting_session(home, scripted(ok)) as settings:
        ask(settings)
        ours = [path for base in (home.runtime, home.state) for path in (base, *base.rglob("*"))]
    assert any(path.name == "server.log" for path in ours)
    for path in ours:
        if path.exists():
            assert stat.S_IMODE(path.stat().st_mode) in (0o700, 0o600), path
    assert {path.name for path in home.root.iterdir()} == {
        "project",
        "claude",
        "tmp",
        "run",
        "config",
        "state",
        "cache",
    }


def test_a_folder_that_is_open_to_others_is_refused(home: Home) -> None:
    home.run("config")
    home.runtime.chmod(0o755)
    answer = home.run("config")
    home.runtime.chmod(0o700)
    assert answer.returncode == 1
    assert "chmod 700" in answer.stderr


def test_a_port_that_is_taken_is_said_so(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    port = backend.url.rpartition(":")[2]
    answer = launch(home, backend, "--port", port, **shell_client(home, "true"))
    assert answer.returncode == 1
    assert f"port {port}" in answer.stderr
    assert "in use" in answer.stderr


def test_a_port_other_than_the_running_servers_is_an_error_that_says_what_to_do(home: Home, scripted: Start) -> None:
    backend = scripted(ok)
    launch(home, backend, **shell_client(home, "true"))
    answer = launch(home, backend, "--port", "1", **shell_client(home, "true"))
    assert answer.returncode == 1
    assert "anyclaude stop" in answer.stderr


def test_the_log_tells_of_turns_and_holds_no_words(home: Home, scripted: Start) -> None:
    with waiting_session(home, scripted(ok)) as settings:
        ask(settings, "words of the person")
        wait_until(lambda: "openai scripted: prompt" in home.run("logs").stdout, "the turn is in the log")
        log = home.run("logs").stdout
    assert "openai scripted: prompt 1000 cached 900" in log
    assert "words of the person" not in log
    assert settings["ANTHROPIC_AUTH_TOKEN"] not in log
