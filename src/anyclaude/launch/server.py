"""The background server from a launcher's side: find it or start it, register, ask, stop.

Two launchers may start at once: the supervisor's lock lets one win, and the other finds its address.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from msgspec import Struct

from anyclaude import __version__
from anyclaude.errors import EngineFailed, ServerNotReached
from anyclaude.launch.environment import server_environment
from anyclaude.paths import Folders
from anyclaude.server.handshake import Address, address_file, all_addresses, is_older, read_address
from anyclaude.server.sessions import NewSession

_START_S = 30.0
_ASK_S = 10.0
_END_S = 15.0
_TRIES = 3
_MAX_ERRORS_FILE = 1 << 20


class Registered(Struct, frozen=True):
    id: str
    token: str
    url: str


class ServerClient:
    """The management routes of one running server. Raises ServerNotReached."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path, None)

    def post(self, path: str, value: Any = None) -> dict[str, Any]:
        return self._ask("POST", path, msgspec.json.encode({} if value is None else value))

    def engine(self, what: str, names: Sequence[str] = ()) -> dict[str, Any] | None:
        """A command to the gateway's engine, for as long as it takes; None where the engine does not run and need not.
        Raises EngineFailed with what the engine said."""
        body = msgspec.json.encode({"what": what, "names": list(names)})
        response = self._response("POST", "/anyclaude/engine", body, limit_s=None)
        if response.is_success:
            return response.json()["told"]
        try:
            raise EngineFailed(response.json()["error"]["message"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise EngineFailed(f"the gateway answered HTTP {response.status_code}") from None

    def _ask(self, method: str, path: str, body: bytes | None) -> dict[str, Any]:
        response = self._response(method, path, body, limit_s=_ASK_S)
        try:
            response.raise_for_status()
            return response.json()
        except (httpx2.HTTPError, json.JSONDecodeError) as error:
            raise self._not_reached(error) from None

    def _response(self, method: str, path: str, body: bytes | None, *, limit_s: float | None) -> httpx2.Response:
        headers = {"authorization": f"Bearer {self.address.token}"}
        if body is not None:
            headers["content-type"] = "application/json"
        timeout = httpx2.Timeout(limit_s, connect=_ASK_S)
        try:
            with httpx2.Client(trust_env=False, timeout=timeout) as client:
                return client.request(method, f"{self.address.url}{path}", content=body, headers=headers)
        except httpx2.HTTPError as error:
            raise self._not_reached(error) from None

    def _not_reached(self, error: Exception) -> ServerNotReached:
        return ServerNotReached(f"the gateway at {self.address.url} does not answer: {error}")


def running(folders: Folders) -> ServerClient | None:
    address = read_address(address_file(folders.runtime))
    return ServerClient(address) if address else None


def register(
    new: NewSession, folders: Folders, *, port: int, idle_stop_s: float, environ: Mapping[str, str]
) -> Registered:
    """At the running server of this version, started if there is none; older ones are told to drain. A server that is
    just stopping is waited for and replaced. Raises ServerNotReached."""
    for _ in range(_TRIES):
        client = running(folders)
        if client is None:
            start(folders, port=port, idle_stop_s=idle_stop_s, environ=environ)
            client = _appeared(folders)
        if client is None:
            continue
        if port not in (0, client.address.port):
            problem = f"the gateway already runs on port {client.address.port}, not {port}"
            raise ServerNotReached(f"{problem}; leave `port` to it, or run `anyclaude stop` first")
        try:
            answer = client.post("/anyclaude/sessions", new)
        except ServerNotReached:
            wait_for_end(client)
            continue
        _drain_older(folders)
        return Registered(answer["id"], answer["token"], client.address.url)
    raise ServerNotReached(f"the gateway did not start; see {_errors_file(folders)} and {folders.log_file}")


def start(folders: Folders, *, port: int, idle_stop_s: float, environ: Mapping[str, str]) -> None:
    """Away from the terminal: its own session, cwd /, none of our descriptors. Returns once it listens, or another
    launcher's server has the lock. Raises ServerNotReached."""
    reading, writing = os.pipe()
    command = [
        sys.executable, "-P", "-m", "anyclaude.server.supervise",
        str(folders.runtime), str(folders.state), str(port), str(idle_stop_s), str(writing),
    ]  # fmt: skip
    with _open_errors_file(folders) as errors:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            cwd="/",
            env=server_environment(environ),
            start_new_session=True,
            pass_fds=[writing],
        )
    os.close(writing)
    process.wait()
    try:
        ready = _read_line(reading)
    finally:
        os.close(reading)
    if problem := ready.get("problem"):
        raise ServerNotReached(f"the gateway cannot listen: {problem}")


def _read_line(descriptor: int) -> dict[str, Any]:
    """One line of JSON from the supervisor; nothing where it died before it could write."""
    data, deadline = b"", time.monotonic() + _START_S
    while not data.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ServerNotReached(f"the gateway did not start within {_START_S:.0f} s")
        part = os.read(descriptor, 4096)
        if not part:
            return {}
        data += part
    return json.loads(data)


def _appeared(folders: Folders) -> ServerClient | None:
    """The address file of whoever holds the lock: it is written a moment after the lock is taken."""
    deadline = time.monotonic() + _ASK_S
    while time.monotonic() < deadline:
        if (client := running(folders)) is not None:
            return client
        time.sleep(0.02)
    return None


def stop(client: ServerClient) -> None:
    """Returns when the server and its supervisor have ended."""
    client.post("/anyclaude/stop")
    wait_for_end(client)


def wait_for_end(client: ServerClient) -> bool:
    """Whether the server that is stopping has ended within the limit."""
    deadline = time.monotonic() + _END_S
    while client.address.is_alive and time.monotonic() < deadline:
        time.sleep(0.02)
    return not client.address.is_alive


def _drain_older(folders: Folders) -> None:
    for address in all_addresses(folders.runtime):
        if address.version != __version__ and is_older(address.version):
            with contextlib.suppress(ServerNotReached):
                ServerClient(address).post("/anyclaude/drain")


def _errors_file(folders: Folders) -> Path:
    return folders.state / "server.err"


def _open_errors_file(folders: Folders) -> Any:
    """Tracebacks of a server that dies; started anew when it has grown."""
    path = _errors_file(folders)
    try:
        if path.exists() and path.stat().st_size > _MAX_ERRORS_FILE:
            path.unlink()
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600), "ab")
    except OSError as error:
        raise ServerNotReached(f"the gateway did not start: {path} cannot be written: {error.strerror}") from None
