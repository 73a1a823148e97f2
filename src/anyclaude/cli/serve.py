"""`anyclaude serve`: the gateway in the foreground, for clients that are started by other means."""

import asyncio
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path

import anyio
import psutil

from anyclaude.backends.engine_process import EngineProcess
from anyclaude.cli.show import print_json, say
from anyclaude.config.settings import Settings
from anyclaude.errors import ServerNotReached, SettingError
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.choice import Choice
from anyclaude.launch.choose import choose
from anyclaude.launch.local_model import hub_folder
from anyclaude.launch.model_store import last_used
from anyclaude.paths import Folders
from anyclaude.server.app import build_app
from anyclaude.server.gateway import Gateway
from anyclaude.server.logs import log_to_terminal
from anyclaude.server.process import process_start
from anyclaude.server.run import Server, engine_command, hosts_of, raise_file_limit
from anyclaude.server.run import serve as run_server
from anyclaude.server.sessions import NewSession, Session, Sessions
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.traces import Traces


def serve(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    """Until Ctrl-C or SIGTERM. Its one session lives in memory only."""
    _check_address(settings)
    choice = asyncio.run(choose(settings, hub_folder(environ), say, lambda: last_used(folders.ledger)))
    sock = _listen(settings.host, settings.port)
    port = sock.getsockname()[1]
    sessions = Sessions(None)
    session = _session(sessions, choice, settings)
    management_token = secrets.token_urlsafe(32)
    traces = Traces(folders.traces, secrets=[management_token])
    engine = EngineProcess(engine_command(folders.state, folders.cache))
    gateway = Gateway(sessions, Ledger(folders.ledger), traces, engine)
    gateway.forget_old()
    log_to_terminal(settings.debug)
    raise_file_limit()
    app = build_app(
        gateway,
        management_token=management_token,
        hosts=hosts_of(port, *_names(settings.host)),
        stop=lambda: server.stop(),
    )
    server = Server(app, gateway)
    _announce(line, choice, session, f"http://{settings.host}:{port}")
    anyio.run(lambda: run_server(server, gateway, sock, None), backend_options={"use_uvloop": True})
    return 0


def _check_address(settings: Settings) -> None:
    """Loopback needs nothing. Anything else is open to others, so the person must have chosen a token for it."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if settings.host == "localhost" else settings.host)
    except ValueError:
        raise SettingError(f"host {settings.host!r} must be an address of this machine, such as 127.0.0.1") from None
    if address.version != 4:
        raise SettingError(f"host {settings.host}: only IPv4 addresses are served")
    if not address.is_loopback and settings.token is None:
        raise SettingError(
            f"{settings.host} can be reached from other machines: set a token first (ANYCLAUDE_TOKEN, or token in"
            " config.toml), which clients then send as their key"
        )


def _names(host: str) -> list[str]:
    """How other machines may call us: the address itself, or every one that this machine has."""
    if host != "0.0.0.0":  # noqa: S104 (compared, not bound)
        return [host]
    addresses = [address.address for found in psutil.net_if_addrs().values() for address in found]
    return [socket.gethostname(), *(address for address in addresses if address.count(".") == 3)]


def _listen(host: str, port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ServerNotReached(f"cannot listen on {host}:{port}: {error.strerror}; try another --port") from None
    sock.listen(512)
    return sock


def _session(sessions: Sessions, choice: Choice, settings: Settings) -> Session:
    pid = os.getpid()
    new = NewSession(
        pid=pid,
        pid_started=process_start(pid),
        project=str(Path.cwd()),
        target=choice.target,
        is_private=settings.private,
    )
    return sessions.add(new, token=settings.token.reveal() if settings.token else None)


def _announce(line: CommandLine, choice: Choice, session: Session, url: str) -> None:
    if "--json" in line.flags:
        print_json({"url": url, "token": session.token, "model": choice.model, "context_window": choice.window})
        return
    for note in choice.notes:
        print(note)
    print(f"\nANTHROPIC_BASE_URL={url}\nANTHROPIC_AUTH_TOKEN={session.token}\n\nCtrl-C stops it.", flush=True)
