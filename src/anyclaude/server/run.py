"""The server process: uvicorn on a socket that somebody else holds, until it is told to stop or has been quiet.

    python -m anyclaude.server.run DESCRIPTOR RUNTIME STATE IDLE_STOP_S

The management token comes through standard input, so that no process list shows it.
"""

import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import anyio
import uvicorn
from msgspec import Struct
from starlette.types import ASGIApp

from anyclaude.backends.engine_child import EngineCommand
from anyclaude.backends.engine_process import EngineProcess
from anyclaude.paths import user_folders
from anyclaude.server.app import build_app
from anyclaude.server.gateway import Gateway
from anyclaude.server.handshake import address_file, announce, read_address, withdraw
from anyclaude.server.logs import log_to, set_level
from anyclaude.server.overlays import delete_dead_overlays
from anyclaude.server.sessions import Sessions
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.traces import Traces

SWEEP_S = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
log = logging.getLogger("anyclaude.server.run")  # this module runs as __main__


class Server(uvicorn.Server):
    """Open streams get an error event before the server goes: uvicorn alone would wait for them without limit."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=5,
            timeout_keep_alive=75, h11_max_incomplete_event_size=1 << 16,
        )  # fmt: skip
        super().__init__(config)
        self._gateway = gateway

    def stop(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._gateway.interrupt_all()
        async with anyio.create_task_group() as group:
            if self._gateway.engine is not None:
                group.start_soon(self._gateway.engine.close)
            await super().shutdown(sockets)
        await self._gateway.clients.close()
        self._gateway.ledger.close()
        if self._gateway.traces is not None:
            self._gateway.traces.close()


class Background(Struct, frozen=True):
    """What a server that nobody watches does on its own: deletes what dead launches left, stops after a quiet time."""

    runtime: Path
    port: int
    token: str
    idle_stop_s: float


def hosts_of(port: int, *names: str) -> frozenset[str]:
    """The Host headers that name us. Clients leave out port 80 (RFC 9110, 7.2)."""
    every = (*LOOPBACK, *names)
    return frozenset(f"{name}:{port}" for name in every) | frozenset(every if port == 80 else ())


async def serve(server: Server, gateway: Gateway, sock: socket.socket, background: Background | None) -> None:
    """Returns when stopped. `background` is None for a server in somebody's foreground."""
    async with anyio.create_task_group() as group:
        gateway.background = group
        gateway.prepare_all()
        if background is not None:
            group.start_soon(_sweep, server, gateway, background)
        await server.serve(sockets=[sock])
        group.cancel_scope.cancel()


async def _sweep(server: Server, gateway: Gateway, background: Background) -> None:
    """Forgets launches that are gone, stops after a quiet time, and takes a killed supervisor's place."""
    supervisor = os.getppid()
    while True:
        await anyio.sleep(SWEEP_S)
        gateway.forget_dead()
        gateway.forget_old()
        delete_dead_overlays(background.runtime / "overlays")
        if os.getppid() != supervisor and read_address(address_file(background.runtime)) is None:
            # The supervisor was killed: in its place this server is found by `status`, `stop` and launches.
            announce(background.runtime, port=background.port, token=background.token)
        limit_s = 0.0 if gateway.is_draining else background.idle_stop_s
        if gateway.quiet_s() > limit_s:
            log.info("stopping: no session and nothing asked for %.0f s", gateway.quiet_s())
            server.stop()
            return


def engine_command(state: Path, cache: Path) -> EngineCommand:
    """Where the engine keeps its blocks, and its log."""
    return EngineCommand(cache=cache / "engine", log_file=state / "engine.log")


def raise_file_limit() -> None:
    """macOS allows 256 open files by default, and every stream is two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main(arguments: list[str]) -> None:
    descriptor, runtime, state, idle_stop_s = (
        int(arguments[0]),
        Path(arguments[1]),
        Path(arguments[2]),
        float(arguments[3]),
    )
    token = sys.stdin.readline().strip()
    log_to(state / "server.log", "info")
    raise_file_limit()
    sock = socket.socket(fileno=descriptor)
    port = sock.getsockname()[1]
    ledger = Ledger(state / "ledger.sqlite3")
    traces = Traces(state / "traces", secrets=[token])
    engine = EngineProcess(engine_command(state, user_folders(None).cache))
    gateway = Gateway(Sessions(runtime / "sessions"), ledger, traces, engine)
    set_level(session.log_level for session in gateway.sessions)
    server: Server | None = None

    def stop() -> None:
        if server is not None:
            server.stop()

    app = build_app(gateway, management_token=token, hosts=hosts_of(port), stop=stop)
    server = Server(app, gateway)
    log.info("listening on 127.0.0.1:%d", port)
    background = Background(runtime, port, token, idle_stop_s)
    anyio.run(lambda: serve(server, gateway, sock, background), backend_options={"use_uvloop": True})
    withdraw(runtime)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    main(sys.argv[1:])
