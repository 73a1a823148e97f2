"""Servers that speak OpenAI chat completions, through the translation and one profile."""

import logging
import re
import secrets
from collections.abc import AsyncIterator, Iterator

import httpx2
import msgspec
from msgspec.structs import replace

from anyclaude.backends.counting import NotCounted, asked
from anyclaude.backends.failures import error_in_stream, error_of, read_failure
from anyclaude.backends.http import Clients, Place, posted, read_limited
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.knowledge import Knowledge, estimated, key_of
from anyclaude.backends.seam import Count, Item, Progress, Target, Turn
from anyclaude.backends.tokenizer import Tokenizer, has_pictures
from anyclaude.errors import ApiError, BackendFailed, InvalidRequest
from anyclaude.prompt.policy import client_call_id
from anyclaude.prompt.specimen import left_out, specimen
from anyclaude.translate.profile import Profile
from anyclaude.translate.request import chat_request
from anyclaude.translate.stream import StreamTranslator
from anyclaude.wire.openai import ChatRequest, Chunk, decode_chunk, encode_chat
from anyclaude.wire.sse import Comment, ServerEvent, SseDecoder
from anyclaude.wire.text import mend_text

_ABOUT_IMAGES = re.compile(rb"image|vision|mmproj|multimodal", re.IGNORECASE)
_MLX_PROGRESS = re.compile(r"keepalive (\d+)/(\d+)")
log = logging.getLogger(__name__)


class ChatBackend:
    def __init__(self, target: Target, clients: Clients, knowledge: Knowledge) -> None:
        self._target = target
        self._clients = clients
        self._knowledge = knowledge
        kind = KINDS[target.kind]
        self._profile = replace(kind.profile, takes_images=False) if target.takes_images is False else kind.profile
        self._place = Place(f"{kind.title} at {target.base_url}", target.silence_s)
        self._url = chat_url(target.base_url)
        self._root = target.base_url.removesuffix("/v1")
        self._tokenizer = Tokenizer(target.kind, self._root, self._post, knowledge.counts)

    async def open(self, turn: Turn) -> AsyncIterator[Item]:
        if turn.request.output_config.format is not None and not self._profile.takes_json_schema:
            raise InvalidRequest("capability_rejected: structured_outputs_unsupported")  # the client goes on without
        profile = self._fitting_profile(turn)
        _, body = self._request(turn, profile)
        while True:
            async with posted(self._clients, self._place, self._url, body, self._headers()) as response:
                if response.status_code == 200:
                    async for item in self._answer(response, turn):
                        yield item
                    return
                refusal = await read_limited(response)
            if (fitted := self._fitted_after(refusal, turn, profile)) != profile:
                profile = fitted
            elif profile.takes_images and b'"image_url"' in body and _ABOUT_IMAGES.search(refusal):
                # The picture stays in the history, so every later turn would be refused too: a note takes its place.
                profile = replace(profile, takes_images=False)
            else:
                raise error_of(self._place.name, response.status_code, response.headers, refusal)
            _, body = self._request(turn, profile)

    async def count(self, turn: Turn) -> Count:
        """By the server's own template and tokenizer where it can be asked."""
        tokens = await self._measured(turn) if self._tokenizer.can_count else None
        return estimated(turn, self._target, self._knowledge) if tokens is None else Count(tokens, is_measured=True)

    async def _measured(self, turn: Turn) -> int | None:
        first = self._fitting_profile(turn)
        request, body = self._request(turn, first)
        if has_pictures(request):
            return None

        async def ask() -> int:
            await self._probe(turn, first)
            return await self._counted(turn, first)

        return await self._knowledge.counts.counted(key_of(self._target, turn.model), body, ask)

    async def _counted(self, turn: Turn, profile: Profile) -> int:
        while True:
            try:
                return await self._tokenizer.count(*self._request(turn, profile))
            except NotCounted as error:
                fitted = self._fitted_after(error.said, turn, profile)
                if fitted == profile:
                    raise
                profile = fitted

    async def _probe(self, turn: Turn, profile: Profile) -> None:
        """Once for each model whose template can be seen at work: what it drops in silence is named."""
        probed, key = self._knowledge.counts.probed, key_of(self._target, turn.model)
        if not self._tokenizer.renders or key in probed:
            return
        probed.add(key)  # before the answer, so that others do not ask too
        is_answered = False
        try:
            if kinds := await self._dropped_kinds(turn, profile):
                log.warning("the chat template of %s leaves out: %s", turn.model, ", ".join(kinds))
            is_answered = True
        except NotCounted:
            is_answered = True
        except ApiError as error:
            log.debug("the chat template of %s was not seen: %s", turn.model, error)
        finally:
            if not is_answered:
                probed.discard(key)

    async def _dropped_kinds(self, turn: Turn, profile: Profile) -> tuple[str, ...]:
        prompt = specimen()
        _, body = self._request(replace(turn, prompt=prompt), profile)
        return left_out(prompt, await self._tokenizer.rendering(body))

    async def _post(self, path: str, body: bytes) -> bytes:
        return await asked(self._clients, self._place, f"{self._root}{path}", body, self._headers())

    def _fitting_profile(self, turn: Turn) -> Profile:
        """With what this model's template was seen to refuse."""
        return self._fitted(turn, self._profile)

    def _fitted_after(self, refusal: bytes, turn: Turn, profile: Profile) -> Profile:
        """What to ask again with; `profile` itself where the refusal names no rule, or one that it keeps already."""
        self._knowledge.learn_from_refusal(key_of(self._target, turn.model), refusal)
        return self._fitted(turn, profile)

    def _fitted(self, turn: Turn, profile: Profile) -> Profile:
        policy = self._knowledge.policy(key_of(self._target, turn.model), self._profile.policy)
        return replace(profile, policy=policy)

    def _request(self, turn: Turn, profile: Profile) -> tuple[ChatRequest, bytes]:
        """And the same as JSON."""
        wanted, most = turn.request.max_tokens, self._target.max_output_tokens
        limit = min(wanted, most) if wanted and most else wanted
        names_model = profile.sends_model or self._target.is_model_chosen
        try:
            request = chat_request(
                turn.prompt,
                turn.request,
                profile,
                model=turn.model if names_model else None,
                max_tokens=limit,
            )
            return request, encode_chat(request)
        except RecursionError:
            raise InvalidRequest("tools: a schema is nested too deeply") from None

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": "text/event-stream"}
        if self._target.api_key:
            headers["authorization"] = f"Bearer {self._target.api_key}"
        return headers

    async def _answer(self, response: httpx2.Response, turn: Turn) -> AsyncIterator[Item]:
        translator = StreamTranslator(
            message_id=turn.message_id,
            model=turn.request.model,
            new_call_id=lambda server_id: client_call_id(secrets.token_hex(12), server_id),
            stop_sequences=turn.request.stop_sequences,
        )
        started = False
        async for found in self._read(response):
            items = list(translator.feed(found)) if isinstance(found, Chunk) else [found]
            if not started:
                started = True
                yield translator.start()
            for item in items:
                yield item
        if not translator.has_finish_reason:
            when = "in the middle of its answer" if started else "before it answered"
            raise BackendFailed(f"{self._place.name} broke off {when}")
        for event in translator.finish():
            yield event

    async def _read(self, response: httpx2.Response) -> AsyncIterator[Chunk | Progress]:
        """Chunks as they arrive; a body that is not a stream is one chunk."""
        content_type = response.headers.get("content-type", "text/event-stream")
        if "text/html" in content_type:
            page = read_failure(await read_limited(response)).message
            raise BackendFailed(f"{self._place.name} sent a web page instead of an answer: {page}", retry=False)
        if "text/event-stream" not in content_type:
            yield self._chunk(await read_limited(response))
            return
        decoder = SseDecoder()
        async for data in response.aiter_bytes():
            for item in decoder.feed(data):
                for found in self._item(item):
                    yield found

    def _item(self, item: ServerEvent | Comment) -> Iterator[Chunk | Progress]:
        if isinstance(item, Comment):
            if progress := _MLX_PROGRESS.fullmatch(item.text):
                yield Progress(int(progress[1]), int(progress[2]))
        elif item.data != b"[DONE]":
            chunk = self._chunk(item.data)
            if chunk.prompt_progress is not None:
                yield Progress(chunk.prompt_progress.processed, chunk.prompt_progress.total)
            yield chunk

    def _chunk(self, data: bytes) -> Chunk:
        try:
            chunk = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BackendFailed(f"{self._place.name} sent something that is not a chat completion: {error}") from None
        if bytes(chunk.error) not in (b"", b"null"):
            raise error_in_stream(self._place.name, data)
        return chunk


def _decode(data: bytes) -> Chunk:
    """Half an emoji at the end of a token is no reason to end the answer."""
    try:
        return decode_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decode_chunk(mend_text(data))


def chat_url(base_url: str) -> str:
    """Accepts an address with or without `/v1`."""
    return f"{base_url}/chat/completions" if base_url.endswith("/v1") else f"{base_url}/v1/chat/completions"
