"""The Hugging Face hub as far as a download needs it, on a real socket, with the faults that a test asks for."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "1234567890abcdef1234567890abcdef12345678"


class ScriptedHub:
    """One model's files. `breaks` ends the connection after so many bytes of a file, as often as said; `refuses` is a
    status and a code of the hub's for everything; `waits` holds a file back after so many bytes."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        self.name = name
        self.files = files
        self.breaks: dict[str, list[int]] = {}
        self.waits: dict[str, int] = {}
        self.is_waiting = threading.Event()
        self.refuses: tuple[int, str] | None = None
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    @property
    def fetched(self) -> list[tuple[str, str | None]]:
        """Each file that was asked for, with the range."""
        found = [(path, headers) for method, path, headers in self.asked if method == "GET" and "/resolve/" in path]
        return [(path.rpartition("/")[2], headers.get("range")) for path, headers in found]

    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_HUB_DISABLE_XET": "1"}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class _Handler(BaseHTTPRequestHandler):
    hub: ScriptedHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve(has_body=False)

    def do_GET(self) -> None:
        self._serve(has_body=True)

    def _serve(self, *, has_body: bool) -> None:
        hub = self.hub
        path = self.path.partition("?")[0]
        hub.asked.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        if hub.refuses is not None:
            status, code = hub.refuses
            self._answer(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": "no"}, has_body=has_body)
        elif path == f"/api/models/{hub.name}/revision/main":
            self._json({"id": hub.name, "modelId": hub.name, "sha": COMMIT, "siblings": []})
        elif path == f"/api/models/{hub.name}/tree/{COMMIT}":
            self._json([_entry(name, data) for name, data in hub.files.items()])
        elif path.startswith(f"/{hub.name}/resolve/{COMMIT}/"):
            self._file(path.rpartition("/")[2], has_body=has_body)
        else:
            headers = {"X-Error-Code": "RepoNotFound"}
            self._answer(404, b'{"error": "Repository not found"}', headers, has_body=has_body)

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, *, has_body: bool) -> None:
        data = self.hub.files[name]
        headers = {"ETag": f'"{_digest(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = 0
        if wanted := self.headers.get("range"):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206 if start else 200, data[start:], headers, has_body=has_body, name=name)

    def _answer(
        self, status: int, body: bytes, headers: dict[str, str], *, has_body: bool = True, name: str | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if not has_body:
            return
        breaks = self.hub.breaks.get(name or "", [])
        if breaks:
            self.wfile.write(body[: breaks.pop(0)])
            self.wfile.flush()
            self.close_connection = True
        elif name in self.hub.waits:
            self.wfile.write(body[: self.hub.waits[name]])
            self.wfile.flush()
            self.hub.is_waiting.set()
            with contextlib.suppress(ConnectionResetError):
                self.rfile.read(1)  # until the other side goes away
            self.close_connection = True
        else:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the test looks at `asked`."""


def _digest(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": _digest(data)}


@contextmanager
def scripted_hub(name: str, files: dict[str, bytes]) -> Generator[ScriptedHub]:
    hub = ScriptedHub(name, files)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join(60)
        server.server_close()
