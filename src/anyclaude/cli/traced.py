"""Traces, as commands name them: the ledger's number of the turn, a request id or its beginning, or `last`."""

from pathlib import Path

import msgspec

from anyclaude.cli.recorded import open_history
from anyclaude.cli.show import say
from anyclaude.errors import LedgerFailed, TraceFailed, UsageError
from anyclaude.paths import Folders
from anyclaude.prompt.head import Head
from anyclaude.telemetry.trace_files import Trace, TraceFolder, read_trace
from anyclaude.wire.blocks import BadField
from anyclaude.wire.messages import MessagesRequest, decode_request

NOTHING = "nothing is traced yet; `anyclaude trace on` records every turn from then on"


def find_trace(name: str, folders: Folders) -> Path:
    """Raises UsageError."""
    folder = TraceFolder(folders.traces)
    files = folder.files()
    if not files:
        raise UsageError(NOTHING)
    if name == "last":
        return files[-1]
    request_id = _request_of(int(name), folders) if name.isascii() and name.isdecimal() else name
    found = folder.found(request_id if request_id.startswith("req_") else f"req_{request_id}")
    if len(found) > 1:
        raise UsageError(f"{name} is the beginning of {len(found)} request ids; give more of it")
    if not found:
        raise UsageError(f"there is no trace of turn {name}: `anyclaude trace ls` lists what was recorded. "
                         "Words for the model go after `--`: anyclaude -- trace ...")  # fmt: skip
    return found[0]


def load_trace(name: str, folders: Folders) -> Trace:
    """Raises UsageError or TraceFailed."""
    return read_trace(find_trace(name, folders))


def recorded_request(found: Trace) -> MessagesRequest:
    """Raises TraceFailed."""
    if found.request is None:
        raise TraceFailed(f"the trace of {found.header.request_id} ends before its request; there is nothing to use")
    try:
        return decode_request(msgspec.json.encode(found.request))
    except BadField as error:
        raise TraceFailed(f"the request in the trace of {found.header.request_id} cannot be read: {error}") from None


def head_of(found: Trace) -> Head | None:
    """The head that the turn was read from. Raises TraceFailed."""
    try:
        return msgspec.convert(found.header.head, Head | None)
    except msgspec.ValidationError as error:
        raise TraceFailed(f"the head in the trace of {found.header.request_id} cannot be read: {error}") from None


def turn_numbers(folders: Folders) -> dict[str, int]:
    """The ledger's number of each request. Traces can be read without it."""
    try:
        history = open_history(folders)
        if history is None:
            return {}
        with history:
            return {row.request_id: row.id for row in history.turns() if row.id is not None}
    except LedgerFailed as error:
        say(error.message)
        return {}


def _request_of(number: int, folders: Folders) -> str:
    history = open_history(folders)
    if history is not None:
        with history:
            row = history.turn(number)
        if row is not None:
            return row.request_id
    raise UsageError(f"there is no turn {number} in the ledger; `anyclaude trace ls` lists what was recorded")
