"""A server's refusal as the error the client acts on. Numbers come from the server's own words, never from us."""

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec
from msgspec import Struct

from anyclaude.errors import (
    ApiError,
    BackendFailed,
    BackendTimeout,
    InvalidRequest,
    Missing,
    Overloaded,
    PromptTooLong,
    RateLimited,
    Refused,
    Relayed,
    TooLarge,
)

_MAX_SHOWN = 600
# Some servers repeat the key that they refuse.
_KEY = re.compile(r"\bBearer\s+[^\s'\"]+|\b(?:sk|pk|hf|gsk|xai)[-_][\w*-]{8,}")
_NO_SUCH_MODEL = re.compile(r"is not a valid model ID|model '[^']*' not found", re.IGNORECASE)
_ABOUT_A_MODEL = re.compile(r"model|not found|repo|snapshot|HTTP 404", re.IGNORECASE)
_TOO_LONG = re.compile(
    r"context (?:length|window|size|limit|overflow)|context_length_exceeded|prompt is too long|too many tokens"
    r"|context the overflows",
    re.IGNORECASE,
)
# How servers word it; the groups are figures of theirs. See tests/transcripts for where each was read.
_WORDINGS = tuple(
    re.compile(wording, re.IGNORECASE | re.DOTALL)
    for wording in (
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<window>\d+) tokens\)",
        # "at least" is where that server stopped counting, so only the total says anything
        (
            r"context length is (?P<window>\d+) tokens.*your prompt contains at least \d+ input tokens,"
            r" for a total of at least (?P<prompt>\d+) tokens"
        ),
        (
            r"you passed (?P<prompt>\d+) input tokens and requested (?P<output>\d+) output tokens"
            r".*context length is only (?P<window>\d+) tokens"
        ),
        (
            r"context length is (?P<window>\d+) tokens.*\((?P<prompt>\d+) in the messages"
            r"(?:, (?P<tools>\d+) in the functions)?, (?P<output>\d+) in the completion\)"
        ),
        (
            r"context length is (?P<window>\d+) tokens.*\((?P<prompt>\d+) of text input"
            r"(?:, (?P<tools>\d+) of tool input)?, (?P<output>\d+) in the output\)"
        ),
        r"the input has (?P<prompt>\d+) tokens, but the context length only supports (?P<window>\d+) tokens",
        r"keep the first (?P<prompt>\d+) tokens when .*context length of only (?P<window>\d+) tokens",
        r"context length is (?P<window>\d+) tokens.*messages resulted in (?P<prompt>\d+) tokens",
        r"prompt is too long: (?P<prompt>\d+) tokens > (?P<window>\d+) maximum",
    )
)


class Failure(Struct, frozen=True):
    """What a server said when it refused: its message, and figures where it names them."""

    message: str
    n_prompt: int | None = None
    window: int | None = None


class _NativeErrorBody(Struct, frozen=True):
    type: str
    message: str


class _NativeError(Struct, frozen=True):
    error: _NativeErrorBody


def error_of(server: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """`server` is its kind and address, for the message."""
    failure = read_failure(body)
    said = f"{server}: {failure.message}" if failure.message else f"{server} answered HTTP {status}"
    if status in (400, 413, 422, 500) and (too_long := _too_long(failure)) is not None:
        return too_long
    match status:
        case 401 | 402 | 403 | 407:
            return Refused(f"{said} (HTTP {status}; check ANYCLAUDE_API_KEY or api_key)")
        case 400 if _NO_SUCH_MODEL.search(said):
            return Missing(said)
        case 404:
            # mlx_lm.server answers so to everything that goes wrong before it generates, a template's error too.
            return Missing(said) if _ABOUT_A_MODEL.search(said) else InvalidRequest(said)
        case 408 | 504:
            return BackendTimeout(said)
        case 413:
            return TooLarge(said)
        case 429:
            return RateLimited(said, retry_after_s=_retry_after_s(headers))
        case 503 | 529:
            return Overloaded(said, retry_after_s=_retry_after_s(headers))
        case 500:
            # Local servers answer so to what they cannot do at all, a template that raises, for example.
            return BackendFailed(f"{said} (HTTP 500)", retry=False)
        case _ if status > 500:
            return BackendFailed(f"{said} (HTTP {status})")
        case _:
            return InvalidRequest(said)


def relayed_error(server: str, status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """A refusal in the Messages API's own shape keeps its words, save that of a key: the key is ours."""
    try:
        error = msgspec.json.decode(body, type=_NativeError).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error_of(server, status, headers, body)
    if status in (401, 403):
        return error_of(server, status, headers, body)
    retry = {"true": True, "false": False}.get(headers.get("x-should-retry", ""))
    after_s = _retry_after_s(headers)
    return Relayed(
        _KEY.sub("(hidden)", error.message), status=status, kind=error.type, retry_after_s=after_s, retry=retry
    )


def error_in_stream(server: str, body: bytes) -> ApiError:
    """An object with `error` that came as a chunk, in the middle of an answer or instead of one."""
    failure = read_failure(body)
    return _too_long(failure) or BackendFailed(f"{server}: {failure.message or 'an error without a message'}")


def read_failure(body: bytes) -> Failure:
    """Every shape in use: `{"error": {"message": …}}`, `{"error": "…"}`, `{"message": …}`, `{"detail": …}`, a shape
    inside a message, HTML, text."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Failure(_plain(body))
    error = fields.get("error", fields)
    if not isinstance(error, dict):
        return Failure(_shortened(str(error)))
    details = cast("dict[str, Any]", error)
    message = _message(details) or _message(fields) or msgspec.json.encode(details).decode()
    if message.startswith("{"):
        return read_failure(message.encode()) if message.encode() != body else Failure(_shortened(message))
    return Failure(_shortened(message), _int(details.get("n_prompt_tokens")), _int(details.get("n_ctx")))


def _message(fields: dict[str, Any]) -> str | None:
    """A router wraps the real refusal in `metadata.raw`."""
    metadata = fields.get("metadata")
    raw = cast("dict[str, Any]", metadata).get("raw") if isinstance(metadata, dict) else None
    found = raw or fields.get("message") or fields.get("detail")
    if found is None or isinstance(found, str):
        return found
    return msgspec.json.encode(found).decode()


def _too_long(failure: Failure) -> ApiError | None:
    if failure.n_prompt is not None and failure.window is not None:
        return PromptTooLong.by_prompt(failure.n_prompt, failure.window)
    for wording in _WORDINGS:
        if found := wording.search(failure.message):
            return _by_figures({name: int(figure) for name, figure in found.groupdict().items() if figure})
    if _TOO_LONG.search(failure.message):
        return PromptTooLong(f"prompt is too long: {failure.message}")
    return None


def _by_figures(figures: dict[str, int]) -> ApiError:
    prompt, window = figures["prompt"] + figures.get("tools", 0), figures["window"]
    if "output" in figures and prompt < window:
        return PromptTooLong.by_output(prompt, figures["output"], window)
    return PromptTooLong.by_prompt(prompt, window)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None


def _plain(body: bytes) -> str:
    """The words of an HTML page or of plain text, on one line."""
    text = body[:20_000].decode("utf-8", "replace")
    text = re.sub(r"<(script|style)\b.*?</\1>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return _shortened(re.sub(r"<[^>]*>", " ", text))


def _shortened(text: str) -> str:
    text = _KEY.sub("(hidden)", " ".join(text.split()))
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
