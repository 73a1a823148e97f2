"""The model servers that a session is measured on, each a child of its own with folders of its own.

Fresh in a new folder; started again in the same folder, it finds what it left there. All multiply with OpenBLAS where
the system has it: the engine loads it itself, the others get it by LD_PRELOAD.
"""

import contextlib
import ctypes.util
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import psutil
from msgspec.structs import replace

from bench.asking import Asked, BadAnswer, Question, ask
from bench.servers import START_S, free_port, own_environment, running

VLLM_MLX = Path(__file__).with_name(".vllm-mlx")
_VLLM_MLX_WANTED = ("vllm-mlx==0.6.0", "mlx[cpu]" if sys.platform == "linux" else "mlx")
FIRST_WORD = Question("", [("user", "hello")], 1)  # ready is who has answered it
_CACHE_LINE = re.compile(r"Prompt Cache: (\d+) sequences, ([\d.]+) GB")
_SCHEDULED = re.compile(r"prompt_tokens=(\d+) tokens_to_prefill=(\d+)")
_CACHE_MEMORY = re.compile(r"cache_entries=\d+ cache_mem=([\d.]+)MB")


class Running(Protocol):
    """One started server that has answered its first word."""

    def ask(self, model: Path, question: Question, seen: Callable[[], None] | None = None) -> Asked:
        """Raises BadAnswer."""
        ...

    def settle(self) -> None:
        """Returns when what it does ahead of the person is done. Raises BadAnswer."""
        ...

    def stored_bytes(self) -> int | None:
        """What it keeps of prompts, as it tells itself. To be called when nothing runs."""
        ...

    def cpu_s(self) -> float:
        """Of all its processes so far, to the system's clock tick (10 ms)."""
        ...

    def memory(self) -> dict[str, int]:
        """Of all its processes: `resident` now, `peak` where the system tells, and what else the server itself tells
        in bytes."""
        ...


class Contestant(Protocol):
    """`switches`: one start of it serves several models. `prepares`: it works while the person still types."""

    name: str
    version: str
    switches: bool
    prepares: bool

    def running(self, home: Path, project: Path) -> AbstractContextManager[Running]:
        """Inside, it is ready: a first word was asked for and has come. `project` is where the person works."""
        ...


class OpenAi:
    """A server of the chat completions API."""

    def __init__(self, pid: int, port: int, log: Path) -> None:
        self._pid = pid
        self._port = port
        self._log = log

    def ask(self, model: Path, question: Question, seen: Callable[[], None] | None = None) -> Asked:
        return ask(self._port, "chat", "", str(model), question, seen)

    def settle(self) -> None:
        pass

    def stored_bytes(self) -> int | None:
        return None

    def cpu_s(self) -> float:
        return cpu_s_of(self._pid)

    def memory(self) -> dict[str, int]:
        return memory_of(self._pid)

    def _written(self) -> str:
        return self._log.read_text(errors="replace")


class MlxLmRunning(OpenAi):
    def __init__(self, pid: int, port: int, log: Path, model: Path) -> None:
        super().__init__(pid, port, log)
        self._model = model
        self._n = 0

    def stored_bytes(self) -> int | None:
        """It logs them, in tens of megabytes, when the next question begins: a word that adds next to nothing."""
        self._n += 1
        self.ask(self._model, Question("", [("user", f"word {self._n}")], 1))
        found = _CACHE_LINE.findall(self._written())
        return int(float(found[-1][1]) * 1e9) if found else None


class MlxLm:
    """The real mlx_lm.server of this environment."""

    name = "mlx_lm.server"
    switches = True
    prepares = False

    def __init__(self, models: tuple[Path, Path], version: str) -> None:
        self._models = models
        self.version = version

    @contextlib.contextmanager
    def running(self, home: Path, project: Path) -> Generator[Running]:
        port, model = free_port(), self._models[0]
        command = [sys.executable, "-m", "mlx_lm", "server", "--model", str(model)]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        home.mkdir(mode=0o700, exist_ok=True)
        (home / "hub" / "hub").mkdir(parents=True, exist_ok=True)
        with running(command, _environment(home), home) as process:
            server = MlxLmRunning(process.pid, port, home / "stderr", model)
            wait_for_a_word(server, model, process, home / "stderr")
            yield server


class VllmMlxRunning(OpenAi):
    """Its usage does not say what was cached; its log does."""

    def ask(self, model: Path, question: Question, seen: Callable[[], None] | None = None) -> Asked:
        asked = super().ask(model, question, seen)
        found = _SCHEDULED.findall(self._written())
        if not found or int(found[-1][0]) != asked.n_prompt:
            return asked
        return replace(asked, n_cached=asked.n_prompt - int(found[-1][1]))

    def stored_bytes(self) -> int | None:
        found = _CACHE_MEMORY.findall(self._written())
        return int(float(found[-1]) * 1_000_000) if found else None


class VllmMlx:
    """In a virtual environment of its own, as it is meant to be run with a cache on disk."""

    name = "vllm-mlx"
    switches = False
    prepares = False

    def __init__(self, models: tuple[Path, Path]) -> None:
        self._models = models
        self.version = vllm_mlx_version()

    @contextlib.contextmanager
    def running(self, home: Path, project: Path) -> Generator[Running]:
        port, model = free_port(), self._models[0]
        command = [str(VLLM_MLX / "bin" / "vllm-mlx"), "serve", str(model), "--continuous-batching"]
        command += ["--ssd-cache-dir", str(home / "ssd"), "--host", "127.0.0.1", "--port", str(port)]
        with running(command, _environment(home), home) as process:
            server = VllmMlxRunning(process.pid, port, home / "stderr")
            wait_for_a_word(server, model, process, home / "stderr")
            yield server


def wait_for_a_word(server: Running, model: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the server listens, has its model, and has answered. Raises BadAnswer."""
    until = time.monotonic() + START_S
    while True:
        try:
            server.ask(model, FIRST_WORD)
            return
        except BadAnswer as error:
            if time.monotonic() > until or process.poll() is not None:
                written = log.read_text(errors="replace")[-1500:]
                raise BadAnswer(f"it did not start: {error}\n{written}") from None
        time.sleep(0.02)


def cpu_s_of(pid: int) -> float:
    root = psutil.Process(pid)
    alive = [process.cpu_times() for process in (root, *root.children(recursive=True))]
    return sum(times.user + times.system for times in alive)


def memory_of(pid: int) -> dict[str, int]:
    root = psutil.Process(pid)
    processes = [root, *root.children(recursive=True)]
    peaks = [_peak(process.pid) for process in processes]
    found = {"resident": sum(process.memory_info().rss for process in processes)}
    return found | ({"peak": sum(peak for peak in peaks if peak)} if all(peaks) else {})


def _peak(pid: int) -> int | None:
    """The most that was ever resident, as Linux tells."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _environment(home: Path) -> Mapping[str, str]:
    more = {"HF_HOME": str(home / "hub"), "HF_HUB_OFFLINE": "1"}
    openblas = ctypes.util.find_library("openblas") if sys.platform == "linux" else None
    return own_environment(home, more | ({"LD_PRELOAD": openblas} if openblas else {}))


def has_vllm_mlx() -> bool:
    return (VLLM_MLX / "bin" / "vllm-mlx").exists()


def install_vllm_mlx() -> None:
    """A virtual environment that git does not see: it pins another mlx-lm than ours."""
    VLLM_MLX.mkdir(exist_ok=True)
    (VLLM_MLX / ".gitignore").write_text("*\n")
    subprocess.run([sys.executable, "-m", "venv", str(VLLM_MLX)], check=True, timeout=120)
    pip = [str(VLLM_MLX / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *_VLLM_MLX_WANTED], check=True, timeout=1800)


def vllm_mlx_version() -> str:
    ask_version = "import importlib.metadata as m; print(m.version('vllm-mlx'))"
    command = [str(VLLM_MLX / "bin" / "python"), "-c", ask_version]
    return subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout.strip()
