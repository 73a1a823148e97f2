"""An engine that speaks by a script: a real process on a real socket pair, for what the real one seldom does.

The script has lives, one for each start of the process, the last for all later ones. A life maps the kind of a request
(`load`, `generate`, `count`, `prepare`, `ask`) to its answers in order, the last for all later ones; `start` is what it
does in place of getting ready. An answer is a list of steps:

    {"type": "piece", ...}      a report with the request's id
    {"wait": NAME}              until the test opens that gate
    {"until": "cancelled"}      until the request is cancelled
    {"raw": TEXT}               bytes that are no frame
    {"kill": SIGNAL}, {"exit": STATUS}, {"say": TEXT}, {"close": true}, {"hang": true}
"""

import errno
import json
import os
import signal
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from anyclaude import __version__
from anyclaude.backends.engine_child import EngineCommand
from anyclaude.wire.frames import FrameReader, decode_request
from tests.support.wait import wait_until

Step = dict[str, Any]
Life = dict[str, Any]

_ROOT = Path(__file__).parents[2]
_PROGRAM = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from tests.support.scripted_engine import main; main()"

CAPABILITIES: Step = {"window": 32_000, "classes": ["append_only"]}
LOADED: Step = {"type": "loaded", "capabilities": CAPABILITIES}
BEGAN: Step = {"type": "began", "n_prompt": 1000, "n_cached": 900}
FINISHED: Step = {
    "type": "finished", "reason": "stop", "n_prompt": 1000, "n_cached": 900, "n_prefilled": 100, "n_out": 5,
}  # fmt: skip
READY: Step = {"type": "ready", "version": __version__, "mlx": "0.0", "device": "scripted"}
CANCELLED: Step = {"until": "cancelled"}
ANSWER: list[Step] = [BEGAN, {"type": "piece", "kind": "text", "text": "hello"}, FINISHED]
_DEFAULTS: dict[str, list[Step]] = {
    "load": [LOADED],
    "generate": ANSWER,
    "count": [{"type": "counted", "n_tokens": 123}],
    "prepare": [{"type": "told", "value": {}}],
    "ask": [{"type": "told", "value": {"scripted": True}}],
}


def text(words: str) -> Step:
    return {"type": "piece", "kind": "text", "text": words}


def thought(words: str) -> Step:
    return {"type": "piece", "kind": "thinking", "text": words}


def failed(kind: str, message: str, **figures: int) -> Step:
    return {"type": "failed", "kind": kind, "message": message} | figures


class ScriptedEngine:
    """The test's side: how to start it, what it was sent, and its gates."""

    def __init__(self, folder: Path, *lives: Life) -> None:
        self._folder = folder
        self._gates = folder / "gates"
        self._gates.mkdir()
        for name in sorted(_gate_names(list(lives))):
            os.mkfifo(self._gates / name)
        (folder / "script.json").write_text(json.dumps(list(lives) or [{}]), encoding="utf-8")
        self.command = EngineCommand(
            cache=folder / "cache",
            log_file=folder / "engine.log",
            options={"folder": str(folder)},
            program=(sys.executable, "-c", _PROGRAM),
        )

    @property
    def pids(self) -> list[int]:
        """Of each life, in order."""
        file = self._folder / "lives"
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    @property
    def arguments(self) -> list[str]:
        """With which the last life was started, after the program."""
        return json.loads((self._folder / "arguments.json").read_bytes())

    def seen(self, kind: str | None = None) -> list[Step]:
        """The requests so far."""
        file = self._folder / "seen.jsonl"
        lines = file.read_text("utf-8").splitlines(keepends=True) if file.exists() else []
        frames = [json.loads(line) for line in lines if line.endswith("\n")]
        return [frame for frame in frames if kind in (None, frame["type"])]

    def wait_for(self, kind: str, n: int = 1) -> Step:
        """The nth request of this kind."""
        wait_until(lambda: len(self.seen(kind)) >= n, f"the engine was sent {n} {kind}")
        return self.seen(kind)[n - 1]

    def open(self, gate: str) -> None:
        """Returns when somebody waits there, who then goes on."""
        wait_until(lambda: self._opened(gate), f"the engine waits at {gate}")

    def _opened(self, gate: str) -> bool:
        try:
            os.close(os.open(self._gates / gate, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.ENXIO:  # nobody reads
                return False
            raise
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pids[-1], number)

    def has_gone(self, pid: int) -> bool:
        """Also as a process that nobody has waited for."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False


def _gate_names(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["wait"]} if isinstance(value.get("wait"), str) else set[str]()
        return own.union(*(_gate_names(inner) for inner in value.values()))
    if isinstance(value, list):
        return set[str]().union(*(_gate_names(inner) for inner in value))
    return set()


class _Process:
    def __init__(self, descriptor: int, folder: Path) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._folder = folder
        lives: list[Life] = json.loads((folder / "script.json").read_bytes())
        with (self._folder / "lives").open("a+") as file:
            file.write(f"{os.getpid()}\n")
            file.flush()
            file.seek(0)
            n_lives = len(file.read().split())
        self._life = lives[min(n_lives, len(lives)) - 1]
        self._sending = threading.Lock()
        self._n_asked = Counter[str]()
        self._cancelled: dict[int, threading.Event] = {}

    def run(self) -> None:
        if self._life.get("ignores") == "SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._do(self._life.get("start", [READY]), 0)
        reader = FrameReader()
        while data := self._socket.recv(1 << 16):
            for body in reader.feed(data):
                self._take(body)
        if not self._life.get("stays"):
            os._exit(0)
        threading.Event().wait()

    def _take(self, body: bytes) -> None:
        decode_request(body)
        frame = msgspec.msgpack.decode(body)
        kind = frame["type"]
        with (self._folder / "seen.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(frame) + "\n")
        if kind == "cancel":
            self._cancelled[frame["id"]].set()
            return
        self._cancelled[frame["id"]] = threading.Event()
        answers = self._life.get(kind) or [_DEFAULTS[kind]]
        answer = answers[min(self._n_asked[kind], len(answers) - 1)]
        self._n_asked[kind] += 1
        threading.Thread(target=self._do, args=(answer, frame["id"]), daemon=True).start()

    def _do(self, steps: list[Step], request_id: int) -> None:
        for step in steps:
            match step:
                case {"type": str(kind)}:
                    frame = step if kind == "ready" else step | {"id": request_id}
                    body = msgspec.msgpack.encode(frame)
                    self._send(len(body).to_bytes(4, "big") + body)
                case {"wait": str(gate)}:
                    (self._folder / "gates" / gate).read_bytes()
                case {"until": "cancelled"}:
                    self._cancelled[request_id].wait()
                case {"raw": str(data)}:
                    self._send(data.encode())
                case {"kill": str(name)}:
                    os.kill(os.getpid(), signal.Signals[name])
                case {"exit": int(status)}:
                    os._exit(status)
                case {"say": str(words)}:
                    print(words, file=sys.stderr, flush=True)
                case {"close": True}:
                    self._socket.shutdown(socket.SHUT_RDWR)
                    threading.Event().wait()
                case {"hang": True}:
                    threading.Event().wait()
                case _:
                    raise AssertionError(step)

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)


def main() -> None:
    """Of the child: DESCRIPTOR CACHE LOG OPTIONS."""
    folder = Path(json.loads(sys.argv[4])["folder"])
    (folder / "arguments.json").write_text(json.dumps(sys.argv[1:]), encoding="utf-8")
    _Process(int(sys.argv[1]), folder).run()
