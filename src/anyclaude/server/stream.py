"""The bytes of one answer: status and headers once, then events and pings in turn, each written whole."""

import time

import anyio
from starlette.types import Scope, Send

from anyclaude.errors import ApiError
from anyclaude.server.answers import error_event, send_error
from anyclaude.wire.events import Event, Ping, encode_event

HEADERS_WAIT_S = 5.0
PING_S = 5.0
_PING = encode_event(Ping())


class EventWriter:
    """Writes events to one client. A slow client holds up `write`, and with it the backend."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._lock = anyio.Lock(fast_acquire=True)  # else every event costs a turn of the event loop
        self._is_open = False
        self._last_write = time.monotonic()

    async def write(self, event: Event) -> None:
        data = encode_event(event)
        async with self._lock:
            await self._write(data)

    async def fail(self, error: ApiError) -> None:
        """An HTTP status while that is still possible, else an `error` event."""
        async with self._lock:
            if self._is_open:
                await self._write(encode_event(error_event(error, self._scope["state"]["request_id"])))
            else:
                self._is_open = True
                await send_error(self._scope, self._send, error)
                return
        await self.close()

    async def close(self) -> None:
        async with self._lock:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def keep_alive(self) -> None:
        """Headers when the backend lets them wait for too long, then a ping in every silence. Runs until cancelled."""
        await anyio.sleep(HEADERS_WAIT_S)
        while True:
            silence_s = time.monotonic() - self._last_write
            if silence_s < PING_S:
                await anyio.sleep(PING_S - silence_s)
                continue
            async with self._lock:
                await self._write(_PING)

    async def _write(self, data: bytes) -> None:
        if not self._is_open:
            self._is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers()})
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._last_write = time.monotonic()

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            (b"request-id", self._scope["state"]["request_id"].encode()),
        ]
