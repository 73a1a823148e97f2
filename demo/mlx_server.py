"""The real mlx_lm.server on the tiny model, as a context: it is ready inside, and gone after."""

import ctypes.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from demo.tiny_model import make_tiny_model

_START_S = 120.0


@contextmanager
def mlx_server(folder: Path, *, temperature: float = 1.0) -> Generator[str]:
    """Yields its base URL. Model, hub cache and log are kept in `folder`."""
    model = make_tiny_model(folder / "tiny-random-qwen3")
    (folder / "hub" / "hub").mkdir(parents=True, exist_ok=True)  # without it its list of models is empty
    port = free_port()
    command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--temp", str(temperature)]
    with (folder / "mlx_lm.server.log").open("ab") as log:
        process = subprocess.Popen(command, env=_environment(folder), stdout=log, stderr=log)
        try:
            _wait_until_loaded(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()  # it aborts on SIGINT
            process.wait(20)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def has_openblas() -> bool:
    return ctypes.util.find_library("openblas") is not None


def _environment(folder: Path) -> dict[str, str]:
    """Offline, with a hub cache of its own, and with OpenBLAS where the system has it."""
    environment = os.environ | {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1"}
    openblas = ctypes.util.find_library("openblas")
    if sys.platform == "linux" and openblas is not None:
        environment["LD_PRELOAD"] = openblas
    return environment


def _wait_until_loaded(url: str, process: subprocess.Popen[bytes]) -> None:
    """/health answers before the model is loaded, so one token is asked for."""
    deadline = time.monotonic() + _START_S
    body = b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}'
    while True:
        try:
            request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=_START_S).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("mlx_lm.server did not start; see mlx_lm.server.log") from None
            time.sleep(0.1)
