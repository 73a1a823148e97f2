"""One streamed question to a model server over HTTP, on a connection of its own, and what the server told of it.

The clock starts before the connection is opened. The first token is there when the first event with content is.
"""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from bench.client import Api

ANSWER_S = 180.0
Turns = list[tuple[str, str]]  # role and text, the person's first


class BadAnswer(Exception):
    """A server did not answer, so it has no figures."""


class Asked(Struct, frozen=True):
    """`n_cached` is None where the API does not tell."""

    first_s: float
    whole_s: float
    text: str
    n_prompt: int
    n_cached: int | None
    n_out: int


class Question(Struct, frozen=True):
    system: str
    turns: Turns
    max_tokens: int

    def body(self, api: Api, model: str) -> bytes:
        """Greedy, so that all servers answer alike."""
        fields: dict[str, Any] = {"model": model, "max_tokens": self.max_tokens, "temperature": 0.0, "stream": True}
        messages = [{"role": role, "content": text} for role, text in self.turns]
        if api == "messages":
            return json.dumps(fields | {"system": self.system, "messages": messages}).encode()
        head = [{"role": "system", "content": self.system}] if self.system else []
        options = {"stream_options": {"include_usage": True}}
        return json.dumps(fields | {"messages": head + messages} | options).encode()


def ask(port: int, api: Api, key: str, model: str, question: Question, seen: Callable[[], None] | None = None) -> Asked:
    """`seen` is called at the first token, once its time is taken. Raises BadAnswer."""
    body = question.body(api, model)
    request_class = "main" if question.system else "auxiliary"
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        return _Reading(started, seen).whole(_events(connection, api, key, body, request_class))
    except (OSError, http.client.HTTPException) as error:
        raise BadAnswer(f"no answer: {type(error).__name__}: {error}") from None
    finally:
        connection.close()


def _events(
    connection: http.client.HTTPConnection, api: Api, key: str, body: bytes, request_class: str
) -> Iterator[dict[str, Any]]:
    """With the headers by which the gateway knows whose prompts begin alike, and which are worth being ready for."""
    path = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}[api]
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {key}",
        "anthropic-version": "2023-06-01",
        "user-agent": "claude-cli/0 (external, cli)",
        "x-claude-code-request-class": request_class,
    }
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    if response.status != 200:
        raise BadAnswer(f"HTTP {response.status}: {response.read(600)!r}")
    while line := response.readline():
        if line.startswith(b"data: {"):
            yield json.loads(line[6:])


class _Reading:
    """The events of one answer in either API."""

    def __init__(self, started: float, seen: Callable[[], None] | None) -> None:
        self._started = started
        self._seen = seen
        self._first_s: float | None = None
        self._text: list[str] = []
        self._usage: dict[str, Any] = {}

    def whole(self, events: Iterator[dict[str, Any]]) -> Asked:
        for event in events:
            self._take(event)
        whole_s = time.perf_counter() - self._started
        if self._first_s is None:
            raise BadAnswer("an answer without a word")
        return Asked(self._first_s, whole_s, "".join(self._text), *self._tokens())

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("type") == "error" or "error" in event:
            raise BadAnswer(f"{event.get('error')}")
        if "type" in event:
            text = event.get("delta", {}).get("text", "")
            self._usage |= event.get("usage") or event.get("message", {}).get("usage") or {}
        else:
            deltas = [choice.get("delta", {}) for choice in event["choices"]]
            text = "".join(delta.get("content") or "" for delta in deltas)
            self._usage |= event.get("usage") or {}
        if text and self._first_s is None:
            self._first_s = time.perf_counter() - self._started
            if self._seen is not None:
                self._seen()
        self._text.append(text)

    def _tokens(self) -> tuple[int, int | None, int]:
        """Prompt, of it cached, written."""
        usage = self._usage
        if "input_tokens" in usage:
            cached = usage["cache_read_input_tokens"]
            return usage["input_tokens"] + cached + usage["cache_creation_input_tokens"], cached, usage["output_tokens"]
        if "prompt_tokens" not in usage:
            raise BadAnswer(f"an answer without token figures: {usage}")
        details = usage.get("prompt_tokens_details") or {}
        return usage["prompt_tokens"], details.get("cached_tokens"), usage["completion_tokens"]
