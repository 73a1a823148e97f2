"""Made-up turns and sections: a section is known by its text, and its name by its place."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anyclaude.prompt.sections import Section
from anyclaude.telemetry.history import History
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow


def turn_row(request_id: str = "req_1", **fields: Any) -> TurnRow:
    """An answered turn whose every field differs from what a forgotten column would hold."""
    known: dict[str, Any] = {
        "request_id": request_id, "started_at": 1_800_000_000.5, "launch": "launch", "session": "s", "agent": None,
        "request_class": "main", "entrypoint": "cli", "project": "/p", "backend": "vllm", "base_url": "http://one",
        "model": "m", "tokens_prompt": 412, "tokens_cached": 380, "tokens_prefilled": 32, "tokens_out": 21,
        "ttft_s": 0.25, "duration_s": 2.5, "stop_reason": "tool_use", "tool_calls": 2, "repairs": 1, "error": None,
    }  # fmt: skip
    return TurnRow(**(known | fields))


def sections(*texts: str) -> tuple[SectionRow, ...]:
    return tuple(Section("text", f"messages.{n}.text.0", text, "user").row() for n, text in enumerate(texts))


def lazily(*texts: str) -> Callable[[], Sequence[SectionRow]]:
    return lambda: sections(*texts)


def record(ledger: Ledger, *texts: str, **fields: Any) -> TurnRow:
    """The row as the ledger has it, once it is written."""
    ledger.add(turn_row(**fields), lazily(*texts))
    ledger.flush()
    return ledger.recent[-1]


def forgetting(path: Path | None) -> Ledger:
    """A ledger that forgets what is older than 90 days before anything else."""
    ledger = Ledger(path)
    ledger.forget(90)
    return ledger


def recorded(path: Path) -> list[TurnRow]:
    """What another process reads."""
    with History(path) as history:
        return history.turns()


def everything_in(folder: Path) -> bytes:
    """The bytes of every file there, the database's log and what was set aside included."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def n_sections_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM section").fetchone()[0]
    finally:
        connection.close()
