"""The transcripts in tests/transcripts: what each kind of server answers, in its own format."""

import json
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.backends.discovery import Answer, Ask
from anyclaude.wire.sse import ServerEvent, SseDecoder

TRANSCRIPTS = Path(__file__).parent / "transcripts"
SERVERS = tuple(sorted(folder.name for folder in TRANSCRIPTS.iterdir() if folder.is_dir()))
STREAMS = {f"{path.parent.name}/{path.stem}": path.read_bytes() for path in sorted(TRANSCRIPTS.glob("*/*.sse"))}
WHOLE_STREAMS = {name: body for name, body in STREAMS.items() if not name.endswith("midstream_error")}
ERRORS = tuple(sorted(f"{path.parent.name}/{path.stem}" for path in TRANSCRIPTS.glob("*/error_*.json")))


class Refusal(Struct, frozen=True):
    """One HTTP answer as recorded."""

    status: int
    headers: dict[str, str]
    body: bytes


def refusal(name: str) -> Refusal:
    fields = _read(name)
    return Refusal(fields["status"], fields.get("headers", {}), _bytes(fields["body"]))


def events_in(body: bytes) -> list[ServerEvent]:
    """The events of one stream, without comments and the `[DONE]` at its end."""
    items = list(SseDecoder().feed(body))
    return [item for item in items if isinstance(item, ServerEvent) and item.data != b"[DONE]"]


def server_of(name: str, *, under: str = "") -> Ask:
    """A server that answers as recorded. LM Studio answers 200 to any path, others nothing that was recorded."""
    recorded = cast("dict[str, dict[str, Any]]", _read(f"{name}/identify"))

    async def ask(path: str) -> Answer | None:
        found = recorded.get(f"GET {under}{path}")
        if found is not None:
            return Answer(found["status"], found["headers"].get("Server", ""), _bytes(found["body"]))
        if name == "lmstudio":
            return Answer(200, "", json.dumps({"error": f"Unexpected endpoint or method. (GET {path})"}).encode())
        return None

    return ask


def _read(name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((TRANSCRIPTS / f"{name}.json").read_text("utf-8")))


def _bytes(body: object) -> bytes:
    return body.encode() if isinstance(body, str) else json.dumps(body).encode()
