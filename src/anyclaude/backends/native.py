"""Servers that speak the Messages API themselves: the request goes with only the model's name changed, the events come
back as they are, under the name that the client asked for (it drops its own thinking when the name differs)."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, NoReturn, cast

import httpx2
import msgspec
from msgspec import Meta, Struct

from anyclaude.backends.counting import asked, decoded
from anyclaude.backends.failures import error_in_stream, relayed_error
from anyclaude.backends.http import Clients, Place, posted, read_limited
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.knowledge import Knowledge, estimated, key_of
from anyclaude.backends.seam import Count, Item, Target, Turn
from anyclaude.errors import BackendFailed
from anyclaude.prompt.own import OWN_MARK, own_signature
from anyclaude.wire.events import Foreign
from anyclaude.wire.sse import ServerEvent, SseDecoder
from anyclaude.wire.text import mend_text

_VERSION = "2023-06-01"
_LAST = frozenset({"message_stop", "error"})


class _Counted(Struct, frozen=True):
    input_tokens: Annotated[int, Meta(ge=1)]


class NativeBackend:
    def __init__(self, target: Target, clients: Clients, knowledge: Knowledge) -> None:
        self._target = target
        self._clients = clients
        self._knowledge = knowledge
        self._place = Place(f"{KINDS[target.kind].title} at {target.base_url}", target.silence_s)
        self._url = messages_url(target.base_url)

    async def open(self, turn: Turn) -> AsyncIterator[Item]:
        body = self._body(turn, stream=True)
        async with posted(self._clients, self._place, self._url, body, self._headers(turn)) as response:
            if response.status_code != 200:
                await self._refused(response)
            async for event in self._events(response, turn):
                yield event

    async def count(self, turn: Turn) -> Count:
        """By the server itself, which may have no route for it."""
        url, body = f"{self._url}/count_tokens", self._body(turn, stream=None)

        async def ask() -> int:
            answer = await asked(self._clients, self._place, url, body, self._headers(turn))
            return decoded(answer, _Counted).input_tokens

        key = key_of(self._target, turn.model)
        tokens = await self._knowledge.counts.counted(key, body, ask)
        return estimated(turn, self._target, self._knowledge) if tokens is None else Count(tokens, is_measured=True)

    async def _refused(self, response: httpx2.Response) -> NoReturn:
        body = await read_limited(response)
        raise relayed_error(self._place.name, response.status_code, response.headers, body)

    def _body(self, turn: Turn, *, stream: bool | None) -> bytes:
        fields = cast("dict[str, Any]", msgspec.json.decode(mend_text(turn.body)))
        fields["model"] = turn.model
        if OWN_MARK.encode() in turn.body:
            fields["messages"] = list(_without_own(fields["messages"]))
        if stream is not None:
            fields["stream"] = stream
        most = self._target.max_output_tokens
        if most is not None and turn.request.max_tokens is not None:
            fields["max_tokens"] = min(turn.request.max_tokens, most)
        return msgspec.json.encode(fields)

    def _headers(self, turn: Turn) -> dict[str, str]:
        headers = {"content-type": "application/json", "anthropic-version": _VERSION}
        if turn.betas:
            headers["anthropic-beta"] = turn.betas
        if self._target.api_key:
            headers["x-api-key"] = self._target.api_key
            if self._target.kind != "claude":
                headers["authorization"] = f"Bearer {self._target.api_key}"
        return headers

    async def _events(self, response: httpx2.Response, turn: Turn) -> AsyncIterator[Item]:
        decoder = SseDecoder()
        last = ""
        async for data in response.aiter_bytes():
            for item in decoder.feed(data):
                if isinstance(item, ServerEvent):
                    event = self._event(item, turn)
                    if not last and event.name == "error":
                        raise error_in_stream(self._place.name, event.data)
                    last = event.name
                    yield event
        if last not in _LAST:
            raise BackendFailed(f"{self._place.name} broke off in the middle of its answer")

    def _event(self, item: ServerEvent, turn: Turn) -> Foreign:
        try:
            fields = msgspec.json.decode(item.data, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BackendFailed(f"{self._place.name} sent an event that is not JSON") from None
        name = str(fields.get("type") or item.name)
        message = fields.get("message")
        if name == "message_start" and isinstance(message, dict):
            message["model"] = turn.request.model
            return Foreign(name, msgspec.json.encode(fields))
        return Foreign(name, item.data)


def _without_own(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What anyclaude put into an earlier answer was not this server's, which would refuse its signature."""
    for message in messages:
        content = message["content"]
        kept = content if isinstance(content, str) else [block for block in content if not _is_own(block)]
        if kept or not content:
            yield message | {"content": kept}


def _is_own(block: dict[str, Any]) -> bool:
    return block["type"] == "thinking" and block.get("signature") == own_signature(block["thinking"])


def messages_url(base_url: str) -> str:
    """Accepts an address with or without `/v1`."""
    return f"{base_url}/messages" if base_url.endswith("/v1") else f"{base_url}/v1/messages"
