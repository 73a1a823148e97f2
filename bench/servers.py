"""The servers that are measured, each a child of its own, with folders of its own, on 127.0.0.1.

Leaving one of the contexts ends the whole process group of what was started, by force where it does not go.
"""

import contextlib
import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from bench.backend import BURST, PACED
from bench.client import Api

START_S = 120.0
_STOP_S = 20.0
_KEY = "sk-bench"
_LITELLM = Path(__file__).with_name(".litellm")
_LITELLM_WANTED = "litellm[proxy]>=1.106,<1.107"
_LITELLM_SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_TELEMETRY": "False",
    "DISABLE_ADMIN_UI": "True",
    "NO_PROXY": "127.0.0.1",
}


class NotStarted(Exception):
    """A server did not come up; the message ends with what it wrote last."""


class Server(Struct, frozen=True):
    name: str
    version: str
    pid: int
    port: int
    api: Api
    key: str = ""

    def cpu_s(self) -> float:
        """User and system seconds of the process and all its children so far, to the system's clock tick (10 ms)."""
        root = psutil.Process(self.pid)
        alive = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        ended = root.cpu_times()
        return sum(times.user + times.system for times in alive) + ended.children_user + ended.children_system

    def resident_mb(self) -> float:
        root = psutil.Process(self.pid)
        return sum(process.memory_info().rss for process in (root, *root.children(recursive=True))) / 1e6


@contextlib.contextmanager
def backend(folder: Path, n_events: int, gap_s: float) -> Generator[Server]:
    command = [sys.executable, "-m", "bench.backend", str(n_events), str(gap_s)]
    environment = own_environment(folder / "backend", {"PYTHONPATH": str(Path(__file__).parent.parent)})
    with running(command, environment, folder / "backend") as process:
        port = int(_first_output(process, folder / "backend"))
        yield Server("direct", "", process.pid, port, "chat")


@contextlib.contextmanager
def counting_backend(folder: Path, kind: str) -> Generator[Server]:
    command = [sys.executable, "-m", "bench.tokenizer", kind]
    environment = own_environment(folder / "backend", {"PYTHONPATH": str(Path(__file__).parent.parent)})
    with running(command, environment, folder / "backend") as process:
        port = int(_first_output(process, folder / "backend"))
        yield Server(kind, "", process.pid, port, "chat")


@contextlib.contextmanager
def anyclaude(folder: Path, backend_port: int, *, mode: str = "openai") -> Generator[Server]:
    command = [
        str(Path(sys.executable).with_name("anyclaude")),
        *("serve", "--json", "--mode", mode, "--model", BURST, "--port", "0"),
        *("--base-url", f"http://127.0.0.1:{backend_port}"),
    ]
    home = folder / "anyclaude"
    with running(command, own_environment(home, {}), home) as process:
        address = _first_output(process, home)
        version = importlib.metadata.version("anyclaude")
        yield Server("anyclaude", version, process.pid, _port_of(address["url"]), "messages", address["token"])


@contextlib.contextmanager
def litellm(folder: Path, backend_port: int) -> Generator[Server]:
    """One worker, as it starts by default and as anyclaude has; no database, no callbacks."""
    home, port = folder / "litellm", free_port()
    home.mkdir(mode=0o700)
    config = home / "config.json"  # YAML reads JSON
    config.write_text(json.dumps(_litellm_config(backend_port)))
    command = [str(_LITELLM / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with running(command, own_environment(home, _LITELLM_SETTINGS), home) as process:
        _wait_until_alive(process, home, port)
        yield Server("litellm", litellm_version(), process.pid, port, "messages", _KEY)


def has_litellm() -> bool:
    return (_LITELLM / "bin" / "litellm").exists()


def install_litellm() -> None:
    """A virtual environment that git does not see, so that its hundred packages stay out of ours."""
    _LITELLM.mkdir(exist_ok=True)
    (_LITELLM / ".gitignore").write_text("*\n")
    subprocess.run([sys.executable, "-m", "venv", str(_LITELLM)], check=True, timeout=120)
    pip = [str(_LITELLM / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, _LITELLM_WANTED], check=True, timeout=900)


def litellm_version() -> str:
    ask = "import importlib.metadata as m; print(m.version('litellm'))"
    command = [str(_LITELLM / "bin" / "python"), "-c", ask]
    return subprocess.run(command, check=True, timeout=30, capture_output=True, text=True).stdout.strip()


def _litellm_config(backend_port: int) -> dict[str, Any]:
    base = f"http://127.0.0.1:{backend_port}/v1"
    return {
        "model_list": [
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_base": base, "api_key": "none"},
            }
            for name in (BURST, PACED)
        ],
        "litellm_settings": {"use_chat_completions_url_for_anthropic_messages": True, "drop_params": True},
        "general_settings": {"master_key": _KEY},
    }


def own_environment(home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """Nothing of ours but PATH: no setting, no key, no proxy reaches a server."""
    own = {f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE", "DATA")}
    fixed = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PYTHONUNBUFFERED": "1"}
    return {"PATH": os.environ["PATH"], **own, **fixed, **more}


@contextlib.contextmanager
def running(command: list[str], environment: Mapping[str, str], home: Path) -> Generator["subprocess.Popen[bytes]"]:
    home.mkdir(mode=0o700, exist_ok=True)
    with (home / "stdout").open("wb") as out, (home / "stderr").open("wb") as err:
        process = subprocess.Popen(
            command, env=environment, cwd=home, stdin=subprocess.PIPE, stdout=out, stderr=err, start_new_session=True
        )
    try:
        yield process
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError, subprocess.TimeoutExpired):
            os.killpg(process.pid, number)
            process.wait(_STOP_S)
    if process.stdin is not None:
        process.stdin.close()


def _first_output(process: "subprocess.Popen[bytes]", home: Path) -> Any:
    """The JSON value that the server announces itself with."""
    for _ in _while_starting(process, home):
        with contextlib.suppress(ValueError):
            return json.loads((home / "stdout").read_text())
    raise AssertionError


def _wait_until_alive(process: "subprocess.Popen[bytes]", home: Path, port: int) -> None:
    ask = f"GET /health/liveliness HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n\r\n".encode()
    for _ in _while_starting(process, home):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(ask)
            if connection.recv(64).startswith(b"HTTP/1.1 200"):
                return


def _while_starting(process: "subprocess.Popen[bytes]", home: Path) -> Generator[None]:
    """Goes on until the server is there or cannot be any more. Raises NotStarted."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        yield
        time.sleep(0.05)
    written = (home / "stdout").read_text()[-1000:] + (home / "stderr").read_text()[-2000:]
    raise NotStarted(f"{process.args}: exit status {process.poll()}\n{written}")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])
