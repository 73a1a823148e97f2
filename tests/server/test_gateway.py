"""What the server process keeps in order by itself."""

from pathlib import Path

from anyclaude.server.gateway import Gateway
from anyclaude.server.sessions import Sessions
from anyclaude.telemetry.history import History
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import record


def test_turns_of_long_ago_are_forgotten_once_a_day(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    gateway = Gateway(Sessions(None), ledger)
    record(ledger, "old", started_at=1.0)
    young = record(ledger, "young", started_at=4e9)
    gateway.forget_old()
    record(ledger, "old again", started_at=1.0)
    gateway.forget_old()  # it was done today
    ledger.close()
    with History(path) as history:
        assert [row.id for row in history.turns()] == [young.id, 3]
