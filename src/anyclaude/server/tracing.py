"""Where a turn's trace begins: what is known of the turn, without what could open anything."""

import time

import msgspec

from anyclaude.prompt.head import Head
from anyclaude.server.gateway import Gateway
from anyclaude.server.turn import RunningTurn
from anyclaude.telemetry.trace_files import TraceHeader
from anyclaude.telemetry.traces import RunningTrace

# The client's headers that tell how it asked. What is not named here is not written: keys travel in headers.
_KEPT = frozenset(
    {"user-agent", "anthropic-version", "anthropic-beta", "x-stainless-retry-count", "x-app", "content-type"}
)
_KEPT_PREFIX = "x-claude-code-"


def begin_trace(
    gateway: Gateway, running: RunningTurn, head: Head | None, headers: list[tuple[bytes, bytes]]
) -> RunningTrace | None:
    """None where tracing is off, and for a private launch always."""
    traces, labels = gateway.traces, running.labels
    if traces is None or labels.is_private or not traces.is_on:
        return None
    header = TraceHeader(
        request_id=running.request_id,
        started_at=running.meter.started_at,
        launch=labels.launch,
        session=labels.session,
        agent=labels.agent,
        request_class=labels.request_class,
        project=labels.project,
        backend=labels.target.kind,
        base_url=labels.target.base_url,
        model=running.turn.model,
        headers=_kept(headers),
        head=msgspec.to_builtins(head),
    )
    return traces.begin(header, running.turn.body, started=time.monotonic(), secrets=gateway.sessions.secrets())


def _kept(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    named = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return {name: value for name, value in named if name in _KEPT or name.startswith(_KEPT_PREFIX)}
