"""What becomes of a trace of which a part was lost, because more waited to be written than may wait."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from anyclaude.telemetry.trace_files import Limits, TraceFolder, read_trace
from anyclaude.telemetry.traces import WAITING_S, RunningTrace, Traces
from anyclaude.telemetry.write_behind import WAITING
from anyclaude.wire.events import BlockDelta, TextDelta
from tests.telemetry.test_traces import BODY, ROW, header, is_open


@pytest.fixture
def folder(tmp_path: Path) -> TraceFolder:
    made = TraceFolder(tmp_path / "traces")
    made.turn_on(Limits())
    return made


@pytest.fixture
def traces(folder: TraceFolder) -> Generator[Traces]:
    made = Traces(folder.path)
    yield made
    made.close()


def begun(traces: Traces, number: int) -> RunningTrace:
    return traces.begin(header(number), msgspec.json.encode(BODY), started=0.0, secrets=())


@contextmanager
def slow_disk(traces: Traces, folder: TraceFolder) -> Generator[None]:
    """The writer waits for the limits while the block lasts: a pipe stands in their place."""
    (folder.path / "on").unlink()
    os.mkfifo(folder.path / "on")
    begun(traces, 99)
    descriptor = os.open(folder.path / "on", os.O_WRONLY)  # returns when the writer begins to read
    try:
        yield
    finally:
        folder.turn_on(Limits())
        os.close(descriptor)


def speak(trace: RunningTrace, n: int, *, since: int) -> None:
    """So many pieces, each so late that it is written by itself."""
    for number in range(since, since + n):
        trace.see(BlockDelta(0, TextDelta(f"{number} ")), (number + 1) * WAITING_S)


def test_after_a_part_was_lost_the_rest_of_the_trace_is_left_out(traces: Traces, folder: TraceFolder) -> None:
    trace = begun(traces, 1)
    with slow_disk(traces, folder):
        speak(trace, WAITING + 7, since=0)
    traces.flush()
    speak(trace, 3, since=WAITING + 7)
    trace.end(ROW)
    traces.flush()
    found = read_trace(folder.file_for(header(1)))
    assert traces.n_lost > 0
    assert found.end is None
    words = "".join(event.data["delta"]["text"] for event in found.events)
    assert "".join(f"{number} " for number in range(WAITING)).startswith(words)


def test_a_trace_whose_end_was_lost_keeps_no_file_open(traces: Traces, folder: TraceFolder) -> None:
    trace, other = begun(traces, 1), begun(traces, 2)
    traces.flush()
    with slow_disk(traces, folder):
        speak(other, WAITING + 1, since=0)
        trace.end(ROW)
    traces.flush()
    begun(traces, 3)
    traces.flush()
    assert read_trace(folder.file_for(header(1))).end is None
    assert not is_open(folder.file_for(header(1)))
    assert is_open(folder.file_for(header(3)))
