"""What one server process holds: sessions, clients to backends, running turns, the ledger and what was learned."""

import logging
import time
from typing import Any

from anyio.abc import TaskGroup
from msgspec import Struct

from anyclaude import __version__
from anyclaude.backends.engine_process import EngineProcess, EngineStatistics
from anyclaude.backends.http import Clients
from anyclaude.backends.knowledge import Knowledge
from anyclaude.errors import Overloaded
from anyclaude.prompt.sections import rows_of
from anyclaude.server.calibrations import load_calibrations, save_calibration
from anyclaude.server.heads import Heads
from anyclaude.server.logs import set_level
from anyclaude.server.origin import ahead_of
from anyclaude.server.reading_note import AFTER_S
from anyclaude.server.sessions import Session, Sessions
from anyclaude.server.turn import RunningTurn
from anyclaude.telemetry.ledger import LEDGER_DAYS, Ledger
from anyclaude.telemetry.redact import Redactor
from anyclaude.telemetry.traces import Traces
from anyclaude.telemetry.turns import TurnRow

PROTOCOL = 1
_DAY_S = 86400.0
log = logging.getLogger(__name__)


class Statistics(Struct, frozen=True):
    """The server as numbers, and the turns that run right now: `n_read` of `n_total` prompt tokens where the backend
    tells, `is_answering` once the first piece has come. `unwritten` counts what ledger and traces could not write."""

    version: str
    protocol: int
    uptime_s: float
    sessions: int
    running_turns: int
    turns: int
    is_draining: bool
    unwritten: int
    running: tuple[dict[str, Any], ...] = ()
    engine: EngineStatistics | None = None


class Gateway:
    def __init__(
        self,
        sessions: Sessions,
        ledger: Ledger,
        traces: Traces | None = None,
        engine: EngineProcess | None = None,
        *,
        note_after_s: float = AFTER_S,
    ) -> None:
        """Without `traces` none is ever written, without `engine` no session can use it. `background` is where what
        nobody waits for runs; the server's own life bounds it."""
        self.sessions = sessions
        self.ledger = ledger
        self.traces = traces
        self.engine = engine
        self.note_after_s = note_after_s
        self.background: TaskGroup | None = None
        self.clients = Clients()
        self.knowledge = Knowledge(load_calibrations(ledger))
        self.heads = Heads(ledger)
        self.running: set[RunningTurn] = set()
        self.is_draining = False
        self._started = self._last_activity = time.monotonic()
        self._pruned_at: float | None = None

    def touch(self) -> None:
        self._last_activity = time.monotonic()

    def forget_dead(self) -> None:
        """The sessions whose client is gone, and the log level that only they asked for."""
        for session in self.sessions.remove_dead():
            log.info("session %s ended", session.id)
            set_level(other.log_level for other in self.sessions)

    def forget_old(self) -> None:
        """Turns of long ago, once a day: asked as often as one likes."""
        if self._pruned_at is None or time.monotonic() - self._pruned_at > _DAY_S:
            self._pruned_at = time.monotonic()
            self.ledger.forget(LEDGER_DAYS)

    def quiet_s(self) -> float:
        """Seconds since anything was asked; 0 while there is a session."""
        if self.running or len(self.sessions):
            self.touch()
            return 0.0
        return time.monotonic() - self._last_activity

    def prepare(self, session: Session) -> None:
        """While the person still types, the engine reads what this project's prompts begin with. Nobody waits for
        it."""
        target = session.target
        if target.kind == "mlx" and self.engine is not None and self.background is not None and target.model:
            self.engine.use_options(target.engine_options)
            self.background.start_soon(self.engine.prepare, target.model, ahead_of(session.project, "cli"))

    def prepare_all(self) -> None:
        """For the sessions of clients that outlived an earlier server."""
        for session in {(session.target.model, session.project): session for session in self.sessions}.values():
            self.prepare(session)

    def begin(self, turn: RunningTurn) -> None:
        self.running.add(turn)

    def end(self, turn: RunningTurn) -> None:
        self.running.discard(turn)
        self.touch()
        row = self._row(turn)
        if turn.trace is not None:
            turn.trace.end(row)
        self._record(row, turn)
        log.info(
            "%s %s %s: prompt %s cached %s out %s, first %s s, whole %.2f s, %s",
            row.request_id, row.backend, row.model, _dash(row.tokens_prompt), _dash(row.tokens_cached),
            _dash(row.tokens_out), "-" if row.ttft_s is None else f"{row.ttft_s:.2f}", row.duration_s,
            (_kind(row.error) if turn.labels.is_private else row.error) or row.stop_reason,
        )  # fmt: skip

    def interrupt_all(self) -> None:
        """Every open stream ends with an error that the client answers by trying again."""
        for turn in tuple(self.running):
            turn.interrupt(Overloaded("anyclaude is restarting; the request will be tried again"))

    def _record(self, row: TurnRow, turn: RunningTurn) -> None:
        """Behind the request's back. A private turn stays in memory, and corrects no estimate: the next turn's
        correction would write down what it taught."""
        if turn.labels.is_private:
            self.ledger.recent.append(row)
            return
        sections = turn.turn.sections
        if row.tokens_prompt is not None and row.error is None:
            calibration = self.knowledge.correct(row.server, sections, row.tokens_prompt)
            save_calibration(self.ledger, row.server, calibration)
        self.ledger.add(row, lambda: rows_of(sections), len(turn.turn.body))

    def _row(self, turn: RunningTurn) -> TurnRow:
        meter, labels, tokens = turn.meter, turn.labels, turn.meter.tokens
        return TurnRow(
            request_id=turn.request_id,
            started_at=meter.started_at,
            launch=labels.launch,
            session=labels.session,
            agent=labels.agent,
            request_class=labels.request_class,
            entrypoint=labels.entrypoint,
            project=labels.project,
            backend=labels.target.kind,
            base_url=labels.target.base_url,
            model=turn.turn.model,
            tokens_prompt=tokens.prompt,
            tokens_cached=tokens.cached,
            tokens_prefilled=tokens.prefilled,
            tokens_out=tokens.out,
            ttft_s=meter.ttft_s,
            duration_s=meter.duration_s(time.monotonic()),
            stop_reason=meter.stop_reason,
            tool_calls=meter.n_tool_calls,
            repairs=meter.n_repairs,
            error=Redactor(self.sessions.secrets()).text(turn.outcome) if turn.outcome else None,
        )

    def statistics(self) -> Statistics:
        return Statistics(
            version=__version__,
            protocol=PROTOCOL,
            uptime_s=time.monotonic() - self._started,
            sessions=len(self.sessions),
            running_turns=len(self.running),
            turns=len(self.ledger.recent),
            is_draining=self.is_draining,
            unwritten=self.ledger.n_lost + (self.traces.n_lost if self.traces else 0),
            running=tuple(_shown(turn) for turn in self.running),
            engine=self.engine.statistics() if self.engine else None,
        )


def _shown(turn: RunningTurn) -> dict[str, Any]:
    reading = turn.meter.reading
    return {
        "launch": turn.labels.launch,
        "session": turn.labels.session,
        "request_class": turn.labels.request_class,
        "model": turn.turn.model,
        "duration_s": turn.meter.duration_s(time.monotonic()),
        "is_answering": turn.meter.ttft_s is not None,
        "n_read": reading.n_read if reading else None,
        "n_total": reading.n_total if reading else None,
    }


def _kind(error: str | None) -> str | None:
    """Of an error its kind alone: a server's words may quote the prompt."""
    return error.partition(":")[0] if error else None


def _dash(value: object) -> object:
    return "-" if value is None else value
