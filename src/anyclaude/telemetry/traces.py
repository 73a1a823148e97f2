"""Traces: requests and answers in full, written by a thread of their own while the switch is on.

No request waits for one. Secrets are taken out before anything is written, and a file grows while its turn runs, so
that a crash leaves what was there.
"""

import contextlib
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from anyclaude.errors import TraceFailed
from anyclaude.paths import private_folder
from anyclaude.telemetry.redact import Redactor
from anyclaude.telemetry.redact_stream import PieceRedactor
from anyclaude.telemetry.trace_files import TraceEvent, TraceFolder, TraceHeader
from anyclaude.telemetry.turns import Reading, TurnRow
from anyclaude.telemetry.write_behind import Work, WriteBehind
from anyclaude.wire.events import Event, Foreign
from anyclaude.wire.text import mend_text

WAITING_EVENTS = 256
WAITING_S = 2.0

Seen = Event | Reading


class Traces:
    """`secrets` are known to the server from its start. What is too old is deleted then."""

    def __init__(self, folder: Path, *, secrets: Iterable[str] = ()) -> None:
        self._folder = TraceFolder(folder)
        self._secrets = tuple(secrets)
        self._open: dict[Path, _Writer] = {}
        self._behind = WriteBehind(f"the traces in {folder}", at_end=self._leave)
        self._behind.put(self._folder.expire)

    @property
    def is_on(self) -> bool:
        """One stat(): looked at when a turn begins."""
        return self._folder.is_on

    @property
    def n_lost(self) -> int:
        """Parts of traces that could not be written."""
        return self._behind.n_lost

    def begin(self, header: TraceHeader, body: bytes, *, started: float, secrets: Iterable[str]) -> "RunningTrace":
        """Returns at once. `started` is on the clock of `RunningTrace.see`; `secrets` are those of the moment."""
        redactor = Redactor((*self._secrets, *secrets))
        writer = _Writer(self._folder, self._folder.file_for(header), redactor, self._open)
        self._behind.put(lambda: writer.begin(header, body), len(body))
        return RunningTrace(writer, self._behind, started)

    def flush(self) -> None:
        """Returns when everything so far is written."""
        self._behind.flush()

    def close(self) -> None:
        """Writes what waits. Safe to call twice."""
        self._behind.close()

    def _leave(self) -> None:
        """What still runs stays unfinished."""
        for writer in tuple(self._open.values()):
            writer.close()


class RunningTrace:
    """One turn's. Its calls return at once. Where the queue is full the rest of the trace is left out."""

    def __init__(self, writer: "_Writer", behind: WriteBehind, started: float) -> None:
        self._writer = writer
        self._behind = behind
        self._started = started
        self._waiting: list[tuple[float, Seen]] = []
        self._last_put = started

    def see(self, seen: Seen, clock: float) -> None:
        self._waiting.append((clock - self._started, seen))
        if len(self._waiting) >= WAITING_EVENTS or clock - self._last_put >= WAITING_S:
            self._last_put = clock
            self._put_events()

    def end(self, row: TurnRow) -> None:
        self._put_events()
        self._put(lambda: self._writer.end(row))

    def _put_events(self) -> None:
        events, self._waiting = self._waiting, []
        if events:
            self._put(lambda: self._writer.write(events))

    def _put(self, work: Work) -> None:
        if not self._behind.put(work):
            self._writer.has_gap = True


class _Writer:
    """Used by the writing thread alone, but for `has_gap`: something was lost on the way to it. After that, or a
    failure, the rest of this trace is left out."""

    def __init__(self, folder: TraceFolder, path: Path, redactor: Redactor, all_open: "dict[Path, _Writer]") -> None:
        self._folder = folder
        self._path = path
        self._redactor = redactor
        self._pieces = PieceRedactor(redactor)
        self._open = all_open
        self._file: BinaryIO | None = None
        self.has_gap = False

    def begin(self, header: TraceHeader, body: bytes) -> None:
        for other in tuple(self._open.values()):
            other.close_after_gap()
        private_folder(self._folder.path)
        self._folder.expire()
        request = cast("dict[str, Any]", msgspec.json.decode(mend_text(body)))
        request.pop("metadata", None)  # ids of the person's account and device
        data = self._line(header) + self._line({"request": request})
        self._make_room(len(data))  # before there is an empty file
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW
        self._file = open(os.open(self._path, flags, 0o600), "wb", buffering=0)  # noqa: PTH123, SIM115
        self._open[self._path] = self
        with self._closed_on_failure() as file:
            _write_all(file, data)

    def write(self, events: list[tuple[float, Seen]]) -> None:
        self.close_after_gap()
        if self._file is not None:
            with self._closed_on_failure() as file:
                self._append(file, _lines(self._pieces.feed([event_of(at_s, seen) for at_s, seen in events])))

    def end(self, row: TurnRow) -> None:
        self.close_after_gap()
        if self._file is not None:
            with self._closed_on_failure() as file:
                self._append(file, _lines(self._pieces.finish()) + self._line({"end": row}))
            self.close()

    def _append(self, file: BinaryIO, data: bytes) -> None:
        if data:
            self._make_room(len(data))
            _write_all(file, data)

    @contextlib.contextmanager
    def _closed_on_failure(self) -> Generator[BinaryIO]:
        assert self._file is not None
        try:
            yield self._file
        except BaseException:
            self.close()
            raise

    def _make_room(self, n_bytes: int) -> None:
        if not self._folder.make_room(n_bytes, keep=self._open):
            raise TraceFailed("the turns that run now are larger than the budget (setting trace_budget_mb)")

    def close_after_gap(self) -> None:
        """Also called from other turns' beginnings: what was lost may have been the end."""
        if self.has_gap:
            self.close()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            self._open.pop(self._path, None)

    def _line(self, value: Any) -> bytes:
        """One line of JSON without a secret."""
        return msgspec.json.encode(self._redactor.value(msgspec.to_builtins(value))) + b"\n"


def _lines(events: list[TraceEvent]) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def _write_all(file: BinaryIO, data: bytes) -> None:
    """Without a buffer in between, which would be lost with the process."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def event_of(at_s: float, seen: Seen) -> TraceEvent:
    """An event as a trace keeps it: of a foreign server's the data as they came."""
    at_s = round(at_s, 4)
    match seen:
        case Foreign(name=name, data=data):
            return TraceEvent(at_s, name, _decoded(data))
        case Reading(n_read=n_read, n_total=n_total):
            return TraceEvent(at_s, "progress", {"n_read": n_read, "n_total": n_total})
        case _:
            return TraceEvent(at_s, str(seen.__struct_config__.tag), msgspec.to_builtins(seen))


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(mend_text(data))
    except msgspec.DecodeError:
        return data.decode("utf-8", "replace")
