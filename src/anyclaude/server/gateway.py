"""What one server process holds: sessions, clients to backends, running turns, the newest rows."""

import logging
import time
from typing import Any

from msgspec import Struct

from anyclaude import __version__
from anyclaude.backends.http import Clients
from anyclaude.errors import Overloaded
from anyclaude.server.logs import set_level
from anyclaude.server.sessions import Sessions
from anyclaude.server.turn import RunningTurn
from anyclaude.telemetry.turns import TurnLog, TurnRow

PROTOCOL = 1
log = logging.getLogger(__name__)


class Statistics(Struct, frozen=True):
    """The server as numbers, and the turns that run right now: `n_read` of `n_total` prompt tokens where the backend
    tells, `is_answering` once the first piece has come."""

    version: str
    protocol: int
    uptime_s: float
    sessions: int
    running_turns: int
    turns: int
    is_draining: bool
    running: tuple[dict[str, Any], ...] = ()


class Gateway:
    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.clients = Clients()
        self.turns = TurnLog()
        self.running: set[RunningTurn] = set()
        self.is_draining = False
        self._started = self._last_activity = time.monotonic()

    def touch(self) -> None:
        self._last_activity = time.monotonic()

    def forget_dead(self) -> None:
        """The sessions whose client is gone, and the log level that only they asked for."""
        for session in self.sessions.remove_dead():
            log.info("session %s ended", session.id)
            set_level(other.log_level for other in self.sessions)

    def quiet_s(self) -> float:
        """Seconds since anything was asked; 0 while there is a session."""
        if self.running or len(self.sessions):
            self.touch()
            return 0.0
        return time.monotonic() - self._last_activity

    def begin(self, turn: RunningTurn) -> None:
        self.running.add(turn)

    def end(self, turn: RunningTurn) -> None:
        self.running.discard(turn)
        self.touch()
        row = self._row(turn)
        self.turns.add(row)
        log.info(
            "turn %d %s %s: prompt %s cached %s out %s, first %s s, whole %.2f s, %s",
            row.id, row.backend, row.model, _dash(row.tokens_prompt), _dash(row.tokens_cached),
            _dash(row.tokens_out), "-" if row.ttft_s is None else f"{row.ttft_s:.2f}", row.duration_s,
            row.error or row.stop_reason,
        )  # fmt: skip

    def interrupt_all(self) -> None:
        """Every open stream ends with an error that the client answers by trying again."""
        for turn in tuple(self.running):
            turn.interrupt(Overloaded("anyclaude is restarting; the request will be tried again"))

    def _row(self, turn: RunningTurn) -> TurnRow:
        meter, labels = turn.meter, turn.labels
        return TurnRow(
            id=self.turns.next_id(),
            started_at=meter.started_at,
            session=labels.session,
            client_session=labels.client_session,
            agent=labels.agent,
            request_class=labels.request_class,
            project=labels.project,
            backend=labels.backend,
            model=turn.turn.model,
            **meter.tokens,
            ttft_s=meter.ttft_s,
            duration_s=meter.duration_s(time.monotonic()),
            stop_reason=meter.stop_reason,
            tool_calls=meter.n_tool_calls,
            error=turn.outcome,
        )

    def statistics(self) -> Statistics:
        return Statistics(
            version=__version__,
            protocol=PROTOCOL,
            uptime_s=time.monotonic() - self._started,
            sessions=len(self.sessions),
            running_turns=len(self.running),
            turns=len(self.turns.rows),
            is_draining=self.is_draining,
            running=tuple(_shown(turn) for turn in self.running),
        )


def _shown(turn: RunningTurn) -> dict[str, Any]:
    reading = turn.meter.reading
    return {
        "session": turn.labels.session,
        "request_class": turn.labels.request_class,
        "model": turn.turn.model,
        "duration_s": turn.meter.duration_s(time.monotonic()),
        "is_answering": turn.meter.ttft_s is not None,
        "n_read": reading.n_read if reading else None,
        "n_total": reading.n_total if reading else None,
    }


def _dash(value: object) -> object:
    return "-" if value is None else value
