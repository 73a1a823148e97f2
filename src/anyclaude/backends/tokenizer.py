"""A server's own template and tokenizer, asked how many tokens a chat request has: llama-server and vLLM.

Each gets what the chat request would carry, so that it counts what it would read. The routes stand at the server's
root. Formats: llama.cpp tools/server/README.md, vLLM vllm/entrypoints/serve/tokenize/protocol.py.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct

from anyclaude.backends.counting import MISSING, Counts, NotCounted, decoded
from anyclaude.wire.openai import ChatRequest, ImagePart

Post = Callable[[str, bytes], Awaitable[bytes]]  # a path, and what is sent to it
_Some = Annotated[int, Meta(ge=1)]


class _InputTokens(Struct, frozen=True):
    input_tokens: _Some


class _Rendering(Struct, frozen=True):
    prompt: str


class _Tokens(Struct, frozen=True):
    tokens: Annotated[list[int], Meta(min_length=1)]


class _Count(Struct, frozen=True):
    count: _Some


class Tokenizer:
    """One server's; `root` is where its routes begin. Raises NotCounted, and what `post` raises."""

    def __init__(self, kind: str, root: str, post: Post, counts: Counts) -> None:
        self._count = {"llamacpp": self._llamacpp, "vllm": self._vllm}.get(kind)
        self._root = root
        self._post = post
        self._counts = counts
        self.renders = kind == "llamacpp"

    @property
    def can_count(self) -> bool:
        return self._count is not None

    async def count(self, request: ChatRequest, body: bytes) -> int:
        """`body` is the request as JSON."""
        assert self._count is not None
        return await self._count(request, body)

    async def rendering(self, body: bytes) -> str:
        """The prompt as llama-server's template writes it."""
        return decoded(await self._post("/apply-template", body), _Rendering).prompt

    async def _llamacpp(self, request: ChatRequest, body: bytes) -> int:
        """Newer ones render and count in one step; older ones in two."""
        path = "/v1/chat/completions/input_tokens"
        if (url := self._root + path) not in self._counts.missing:
            try:
                return decoded(await self._post(path, body), _InputTokens).input_tokens
            except NotCounted as error:
                if error.status not in MISSING:
                    raise
                self._counts.missing.add(url)
        prompt = await self.rendering(body)
        fields: dict[str, Any] = {"content": prompt, "add_special": True, "parse_special": True}  # as when it generates
        if request.model is not UNSET:
            fields["model"] = request.model  # one that has several models asks the right one
        return len(decoded(await self._post("/tokenize", msgspec.json.encode(fields)), _Tokens).tokens)

    async def _vllm(self, request: ChatRequest, _body: bytes) -> int:
        fields: dict[str, Any] = {"messages": request.messages, "add_generation_prompt": True}
        fields |= {"model": request.model} if request.model is not UNSET else {}
        fields |= {"tools": request.tools} if request.tools else {}
        fields |= {name: request.extra[name] for name in ("chat_template_kwargs",) if name in request.extra}
        return decoded(await self._post("/tokenize", msgspec.json.encode(fields)), _Count).count


def has_pictures(request: ChatRequest) -> bool:
    """Some versions leave them out of their count."""
    contents = (message.content for message in request.messages if not isinstance(message.content, str))
    return any(isinstance(part, ImagePart) for content in contents for part in content)
