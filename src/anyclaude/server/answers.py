"""Answers in the Messages API's shape: JSON, errors, request ids."""

import math
import secrets
from typing import Any

import msgspec
from starlette.types import Scope, Send

from anyclaude.errors import ApiError
from anyclaude.wire.events import Error, ErrorBody


def new_request_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def error_event(error: ApiError, request_id: str) -> Error:
    return Error(ErrorBody(error.kind, error.message), request_id)


def error_headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    headers: list[tuple[bytes, bytes]] = []
    if error.should_retry is not None:
        headers.append((b"x-should-retry", b"true" if error.should_retry else b"false"))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(math.ceil(error.retry_after_s)).encode()))
    return headers


async def send_json(
    scope: Scope, send: Send, value: Any, *, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = msgspec.json.encode(value)
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"request-id", scope["state"]["request_id"].encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": fixed + (headers or [])})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def send_error(scope: Scope, send: Send, error: ApiError) -> None:
    event = error_event(error, scope["state"]["request_id"])
    await send_json(scope, send, event, status=error.status, headers=error_headers(error))
