"""The real engine process, spoken to by frames from a test's own thread."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anyclaude.wire.frames import (
    Ask,
    AskWhat,
    Began,
    CallPiece,
    Cancel,
    Chat,
    Failed,
    Finished,
    FrameReader,
    Generate,
    Load,
    Loaded,
    Loading,
    Piece,
    Prepare,
    Ready,
    Report,
    Request,
    Told,
    Turn,
    decode_report,
    encode_frame,
)

LIMIT_S = 120.0


class Answered:
    """One turn, whole."""

    def __init__(self, reports: Sequence[Report]) -> None:
        self.reports = reports
        self.began = next((each for each in reports if isinstance(each, Began)), None)
        self.last = reports[-1]

    @property
    def finished(self) -> Finished:
        assert isinstance(self.last, Finished), self.last
        return self.last

    @property
    def failed(self) -> Failed:
        assert isinstance(self.last, Failed), self.last
        return self.last

    @property
    def text(self) -> str:
        return "".join(each.text for each in self.reports if isinstance(each, Piece) and each.kind == "text")

    @property
    def thinking(self) -> str:
        return "".join(each.text for each in self.reports if isinstance(each, Piece) and each.kind == "thinking")

    @property
    def calls(self) -> list[CallPiece]:
        return [each for each in self.reports if isinstance(each, CallPiece)]


class EngineClient:
    """`options` are the engine's own; `environ` is added to this process's."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str] | None = None, **options: int) -> None:
        ours, theirs = socket.socketpair()
        command = [
            sys.executable, "-P", "-m", "anyclaude.engine.child",
            str(theirs.fileno()), str(folder), str(folder / "engine.log"), json.dumps(options),
        ]  # fmt: skip
        folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        self.process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=os.environ | (environ or {})
        )
        theirs.close()
        ours.settimeout(LIMIT_S)
        self._sock = ours
        self._reader = FrameReader()
        self._waiting: list[Report] = []
        self._id = 0
        ready = self.next()
        assert isinstance(ready, Ready)
        self.ready = ready

    def next(self) -> Report:
        """The next report of any request. Raises EOFError when the engine is gone."""
        while not self._waiting:
            data = self._sock.recv(1 << 20)
            if not data:
                raise EOFError("the engine is gone")
            self._waiting += [decode_report(body) for body in self._reader.feed(data)]
        return self._waiting.pop(0)

    def send(self, frame: Request) -> None:
        self._sock.sendall(encode_frame(frame))

    def new_id(self) -> int:
        self._id += 1
        return self._id

    def load(self, model: Path) -> Loaded:
        self.send(Load(self.new_id(), str(model)))
        report = self.next()
        while isinstance(report, Loading):
            report = self.next()
        assert isinstance(report, Loaded), report
        return report

    def start(self, model: Path, chat: Chat, *, max_tokens: int = 16, **fields: Any) -> int:
        request_id = self.new_id()
        self.send(Generate(request_id, str(model), chat, max_tokens, **fields))
        return request_id

    def reports(self, request_id: int) -> Iterator[Report]:
        """Of that request alone; those of others are lost."""
        while True:
            report = self.next()
            if getattr(report, "id", None) == request_id:
                yield report
                if isinstance(report, Finished | Failed):
                    return

    def generate(self, model: Path, chat: Chat, *, max_tokens: int = 16, **fields: Any) -> Answered:
        return Answered(list(self.reports(self.start(model, chat, max_tokens=max_tokens, **fields))))

    def answers(self, wanted: set[int]) -> dict[int, Answered]:
        """Of several requests that run at once, each with its reports in order."""
        found: dict[int, list[Report]] = {number: [] for number in wanted}
        waiting = set(wanted)
        while waiting:
            report = self.next()
            number = getattr(report, "id", 0)
            if number in found:
                found[number].append(report)
            if isinstance(report, Finished | Failed | Told):
                waiting.discard(number)
        return {number: Answered(reports) for number, reports in found.items()}

    def ask(self, frame: Any) -> Report:
        """Any request that one report answers."""
        self.send(frame)
        while getattr(report := self.next(), "id", None) != frame.id:
            pass
        return report

    def tell(self, what: AskWhat, *names: str) -> dict[str, Any]:
        """What the engine tells when it is asked for that."""
        report = self.ask(Ask(self.new_id(), what, names))
        assert isinstance(report, Told), report
        return report.value

    def statistics(self, part: str) -> dict[str, Any]:
        """`cache`, `scheduler` or `memory`."""
        return self.tell("statistics")[part]

    def prepare(self, model: Path, ahead: str) -> dict[str, Any]:
        report = self.ask(Prepare(self.new_id(), str(model), ahead))
        assert isinstance(report, Told), report
        return report.value

    def cancel(self, request_id: int) -> None:
        self.send(Cancel(request_id))

    def send_bytes(self, data: bytes) -> None:
        self._sock.sendall(data)

    def terminate(self) -> int:
        """As a system that shuts down. The exit status."""
        self.process.terminate()
        return self.process.wait(LIMIT_S)

    def close(self) -> int:
        """The server's side is closed: the engine writes down what it has and ends."""
        self._sock.close()
        return self.process.wait(LIMIT_S)

    def drop(self) -> None:
        self._sock.close()

    def kill(self) -> None:
        os.kill(self.process.pid, 9)
        self.process.wait(LIMIT_S)
        self._sock.close()


@contextmanager
def running_engine(folder: Path, **options: int) -> Generator[EngineClient]:
    client = EngineClient(folder, environ=None, **options)
    try:
        yield client
    finally:
        if client.process.poll() is None:
            client.close()
        client.drop()


def said(*words: str) -> Chat:
    """A conversation that begins with the person: words in turn."""
    roles = ("user", "assistant")
    return Chat(tuple(Turn(roles[n % 2], text) for n, text in enumerate(words)))
