"""The folder of traces: its switch, its limits, its files, and how each is read.

One file a turn, JSON lines: a header, {"request": …} as the client sent it, {"at_s", "event", "data"} for each event,
{"end": …} with the turn's row. A file without its end is of a turn that still runs, or whose server was killed.
"""

import contextlib
import os
import re
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from anyclaude.errors import TraceFailed
from anyclaude.paths import private_folder, write_private
from anyclaude.telemetry.turns import TurnRow

VERSION = 1
_NAME = re.compile(r"(\d+)-(req_\w+)\.jsonl")


class Limits(Struct, frozen=True):
    """The oldest traces are deleted until all fit in the budget, and each when it is so many days old."""

    budget_bytes: int = 200_000_000
    days: float = 7.0


class TraceHeader(Struct, frozen=True, kw_only=True):
    """Whose turn it was. `headers` are those of the client's that are safe to keep; `head` is the conversation's head
    (prompt/head.py), None where it had none."""

    version: int = VERSION
    request_id: str
    started_at: float
    launch: str
    session: str
    agent: str | None
    request_class: str | None
    project: str
    backend: str
    base_url: str
    model: str
    headers: dict[str, str]
    head: Any = None


class TraceEvent(Struct, frozen=True):
    """`at_s` is seconds since the request came."""

    at_s: float
    event: str
    data: Any


class Trace(Struct, frozen=True, kw_only=True):
    """One recorded turn. `request` is None, or `end`, where the file stops before it."""

    header: TraceHeader
    request: dict[str, Any] | None
    events: tuple[TraceEvent, ...]
    end: TurnRow | None


class Summary(Struct, frozen=True, kw_only=True):
    header: TraceHeader
    end: TurnRow | None
    n_events: int
    n_bytes: int


class _Line(Struct, frozen=True):
    """Any line but the first."""

    request: dict[str, Any] | None = None
    at_s: float = 0.0
    event: str | None = None
    data: Any = None
    end: TurnRow | None = None


_decode_header = msgspec.json.Decoder(TraceHeader).decode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_limits = msgspec.json.Decoder(Limits).decode


class TraceFolder:
    """Nothing is created before `turn_on`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._on = path / "on"
        self._off = path / "off"  # the limits of traces that are still there

    @property
    def is_on(self) -> bool:
        """One stat(). A folder that we may not look into gets no trace."""
        try:
            return self._on.exists()
        except OSError:
            return False

    @property
    def limits(self) -> Limits:
        for file in (self._on, self._off):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                return _decode_limits(file.read_bytes())
        return Limits()

    def turn_on(self, limits: Limits) -> None:
        """Raises UnsafeFolder or TraceFailed."""
        private_folder(self.path)
        try:
            write_private(self._on, msgspec.json.encode(limits))
            self._off.unlink(missing_ok=True)
        except OSError as error:
            raise TraceFailed(f"tracing cannot be turned on ({self._on}): {error.strerror}") from None

    def turn_off(self) -> None:
        """The traces stay, and the limits with them. Raises TraceFailed."""
        try:
            with contextlib.suppress(FileNotFoundError):
                self._on.rename(self._off)
        except OSError as error:
            raise TraceFailed(f"tracing cannot be turned off: {error.strerror}; delete {self._on}") from None

    def files(self) -> list[Path]:
        """Oldest first."""
        try:
            found = [path for path in self.path.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []
        return sorted(found, key=lambda path: (_started_ms(path), path.name))

    def file_for(self, header: TraceHeader) -> Path:
        return self.path / f"{round(header.started_at * 1000)}-{header.request_id}.jsonl"

    def found(self, request_id: str) -> list[Path]:
        """The traces whose request id begins so."""
        return [path for path in self.files() if path.name.partition("-")[2].startswith(request_id)]

    def expire(self) -> None:
        """Deletes what is too old."""
        oldest_ms = (time.time() - self.limits.days * 86400) * 1000
        for path in self.files():
            if _started_ms(path) < oldest_ms:
                path.unlink(missing_ok=True)

    def make_room(self, n_bytes: int, *, keep: Collection[Path]) -> bool:
        """Whether so many bytes more fit in the budget, once the oldest but those in `keep` are deleted. None is where
        that would not help."""
        budget = self.limits.budget_bytes
        sizes = {path: _size(path) for path in self.files()}
        if sum(size for path, size in sizes.items() if path in keep) + n_bytes > budget:
            return False
        total = sum(sizes.values())
        for path, size in sizes.items():
            if total + n_bytes <= budget:
                break
            if path not in keep:
                path.unlink(missing_ok=True)
                total -= size
        return True


def read_trace(path: Path) -> Trace:
    """Raises TraceFailed."""
    first, *rest = _lines(path)
    lines = [_decoded(path, number, line) for number, line in enumerate(rest, 2)]
    return Trace(
        header=_header(path, first),
        request=next((line.request for line in lines if line.request is not None), None),
        events=tuple(TraceEvent(line.at_s, line.event, line.data) for line in lines if line.event is not None),
        end=next((line.end for line in lines if line.end is not None), None),
    )


def summary_of(path: Path) -> Summary:
    """Raises TraceFailed."""
    first, *rest = _lines(path)
    end = _decoded(path, len(rest) + 1, rest[-1]).end if rest and rest[-1].startswith(b'{"end"') else None
    n_events = sum(line.startswith(b'{"at_s"') for line in rest)
    return Summary(header=_header(path, first), end=end, n_events=n_events, n_bytes=_size(path))


def _lines(path: Path) -> list[bytes]:
    """Whole lines: the last one may be torn, its writer was killed."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:  # noqa: PTH123 (a descriptor)
            *whole, _torn = file.read().split(b"\n")
    except OSError as error:
        raise TraceFailed(f"the trace {path} cannot be read: {error.strerror}") from None
    if not whole:
        raise TraceFailed(f"the trace {path} is empty: it was not finished when its server ended; delete it")
    return whole


def _header(path: Path, line: bytes) -> TraceHeader:
    try:
        header = _decode_header(line)
    except msgspec.MsgspecError:
        raise TraceFailed(f"{path} is not a trace, or is damaged in its first line; delete it") from None
    if header.version > VERSION:
        raise TraceFailed(f"the trace {path} was written by a newer anyclaude; update")
    return header


def _decoded(path: Path, number: int, line: bytes) -> _Line:
    try:
        return _decode_line(line)
    except msgspec.MsgspecError:
        raise TraceFailed(f"the trace {path} is damaged in line {number}; delete it") from None


def _started_ms(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _size(path: Path) -> int:
    """0 for one that was deleted meanwhile."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0
