"""The embedded engine as a launch uses it: a background gateway, a registered session, the Messages API."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import psutil

from anyclaude import __version__
from anyclaude.backends.seam import Target
from anyclaude.errors import ServerNotReached
from anyclaude.launch.engine_choice import ENGINE_URL
from anyclaude.launch.server import ServerClient, register, stop
from anyclaude.launch.server import running as running_server
from anyclaude.paths import Folders
from anyclaude.server.process import process_start
from anyclaude.server.sessions import NewSession
from bench.asking import Asked, BadAnswer, Question, ask
from bench.contestants import FIRST_WORD, Running, cpu_s_of, memory_of
from bench.servers import own_environment

_IDLE_S = 900.0  # should this process be killed
_END_S, _SETTLE_S = 20.0, 60.0
_WINDOW = 131_072


class EngineRunning:
    """Sessions are registered when their model is first asked, as two launches would."""

    def __init__(self, home: Path, project: Path, folders: Folders, options: dict[str, int]) -> None:
        self._home = home
        self._project = project
        self._folders = folders
        self._options = options
        self._tokens: dict[Path, str] = {}

    def ask(self, model: Path, question: Question, seen: Callable[[], None] | None = None) -> Asked:
        if model not in self._tokens:
            self.launch(model)
        return ask(self._client.address.port, "messages", self._tokens[model], str(model), question, seen)

    def launch(self, model: Path) -> None:
        """Raises BadAnswer."""
        target = Target(
            kind="mlx",
            base_url=ENGINE_URL,
            model=str(model),
            is_model_chosen=True,
            context_window=_WINDOW,
            takes_images=False,
            engine_options=self._options,
        )
        pid = os.getpid()
        new = NewSession(pid=pid, pid_started=process_start(pid), project=str(self._project), target=target)
        environment = own_environment(self._home, {})
        try:
            found = register(new, self._folders, port=0, idle_stop_s=_IDLE_S, environ=environment)
        except ServerNotReached as error:
            raise BadAnswer(str(error)) from None
        self._tokens[model] = found.token

    def settle(self) -> None:
        until = time.monotonic() + _SETTLE_S
        n_quiet = 0
        while n_quiet < 3:
            n_quiet = 0 if self.statistics()["scheduler"]["waiting"] else n_quiet + 1
            if time.monotonic() > until:
                raise BadAnswer("the engine does not come to rest")
            time.sleep(0.1)

    def cpu_s(self) -> float:
        return cpu_s_of(self._client.address.pid)

    def stored_bytes(self) -> int | None:
        return self.statistics()["cache"]["held_bytes"]

    def memory(self) -> dict[str, int]:
        """`live` is the state of turns that run, `mlx_peak` MLX's own figure, `disk` what the blocks take there."""
        told = self.statistics()
        store = told["cache"]["store"]
        found = {"live": told["scheduler"]["live_bytes"], "mlx_peak": told["memory"]["peak"]}
        found |= {"disk": store["file_bytes"]} if store else {}
        return memory_of(self._client.address.pid) | found

    def statistics(self) -> dict[str, Any]:
        """The engine's own figures."""
        try:
            return self._client.get("/anyclaude/engine")["engine"]
        except ServerNotReached as error:
            raise BadAnswer(str(error)) from None

    def last_words(self) -> str:
        """Of the engine's log."""
        log = self._folders.state / "engine.log"
        return log.read_text(errors="replace")[-1500:] if log.exists() else ""

    def close(self) -> None:
        client = running_server(self._folders)
        if client is None:
            return
        processes = [psutil.Process(client.address.pid), *psutil.Process(client.address.pid).children(recursive=True)]
        with contextlib.suppress(ServerNotReached):
            stop(client)
        _, alive = psutil.wait_procs(processes, timeout=_END_S)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def _client(self) -> ServerClient:
        client = running_server(self._folders)
        if client is None:
            raise BadAnswer(f"the gateway has ended; see {self._folders.state}")
        return client


class Engine:
    """With `options` of its own; without a cache where they leave it no room."""

    version = __version__
    switches = True
    prepares = True

    def __init__(
        self, models: tuple[Path, Path], name: str = "anyclaude", options: dict[str, int] | None = None
    ) -> None:
        self._models = models
        self.name = name
        self._options = options or {}

    @contextlib.contextmanager
    def running(self, home: Path, project: Path) -> Generator[Running]:
        home.mkdir(mode=0o700, exist_ok=True)
        folders = _folders(home)
        shutil.rmtree(folders.sessions, ignore_errors=True)  # as a reboot does: for a client that lives on it prepares
        server = EngineRunning(home, project, folders, self._options)
        try:
            server.launch(self._models[0])
            server.ask(self._models[0], FIRST_WORD)
            yield server
        except BadAnswer as error:
            raise BadAnswer(f"{error}\n{server.last_words()}") from None
        finally:
            server.close()


def _folders(home: Path) -> Folders:
    """Where `own_environment` sends the gateway."""
    names = ("config", "state", "cache")
    ours = {name: home / name / "anyclaude" for name in names}
    return Folders(**ours, runtime=home / "anyclaude").make()
