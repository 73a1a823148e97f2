"""What servers counted, and which of them cannot count, for all requests of this process.

A count is worth neither an error nor a long wait: whatever keeps a server from counting, the caller estimates. The same
prompt is not counted twice within a while, because the client asks for the same tools again and again.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import httpx2
import msgspec

from anyclaude.backends.http import CONNECT_S, Clients, Place, faults_as_errors, read_limited
from anyclaude.errors import ApiError

COUNT_S = 10.0  # for one count, with the wait for its turn
AT_ONCE = 4  # one server's counts: llama-server gives each connection one of its few threads
PATIENCE = 3  # one refused prompt says nothing of the next; so many in a row say that there is no use in asking
KEPT, KEPT_S = 2000, 600.0  # after a while it may be another model, or a newer server
LONGEST_ANSWER = 64 << 20  # a list of every token's number
MISSING = frozenset({404, 405, 501})
_BUSY = frozenset({408, 429, 502, 503, 504})
_OK = 200

Key = tuple[str, str, str]
_T = TypeVar("_T")
log = logging.getLogger(__name__)


class NotCounted(Exception):
    """The server answered, but not with a count. `said` may name a rule of its template."""

    def __init__(self, status: int, said: bytes = b"") -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.said = said

    @property
    def is_final(self) -> bool:
        """There is no such route, or something else stands there."""
        return self.status in MISSING or self.status == _OK


class Counts:
    """`missing` are URLs known not to be served; `probed` the models whose template was looked at."""

    def __init__(self, *, wait_s: float = COUNT_S, kept_s: float = KEPT_S) -> None:
        self._wait_s = wait_s
        self._kept_s = kept_s
        self.missing: set[str] = set()
        self.probed: set[Key] = set()
        self._known: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self._refusals: dict[Key, int] = {}
        self._asked_again_at: dict[Key, float] = {}
        self._turns: dict[str, anyio.Semaphore] = {}

    async def counted(self, key: Key, prompt: bytes, ask: Callable[[], Awaitable[int]]) -> int | None:
        """The tokens of `prompt`, remembered or from `ask`; None where this server does not tell."""
        digest = hashlib.sha256("\0".join(key).encode() + b"\0" + prompt).digest()
        if (tokens := self._remembered(digest)) is not None:
            return tokens
        if anyio.current_time() < self._asked_again_at.get(key, 0.0):
            return None
        try:
            with anyio.fail_after(self._wait_s):
                async with self._turns.setdefault(key[1], anyio.Semaphore(AT_ONCE)):
                    tokens = self._remembered(digest)  # somebody else may have asked meanwhile
                    if tokens is None:
                        tokens = await ask()
        except NotCounted as error:
            self._refused(key, error)
            return None
        except (ApiError, TimeoutError) as error:  # it is down, or too busy: the next count may come through
            log.debug("%s at %s did not count: %s", key[0], key[1], error)
            return None
        self._refusals.pop(key, None)
        self._remember(digest, tokens)
        return tokens

    def _refused(self, key: Key, error: NotCounted) -> None:
        log.debug("%s at %s does not count: %s", key[0], key[1], error)
        if error.status in _BUSY:
            return
        refusals = self._refusals.get(key, 0) + 1
        if error.is_final or refusals >= PATIENCE:
            self._asked_again_at[key] = anyio.current_time() + self._kept_s
            refusals = 0
        self._refusals[key] = refusals

    def _remembered(self, digest: bytes) -> int | None:
        tokens, until = self._known.get(digest, (None, 0.0))
        return tokens if anyio.current_time() < until else None

    def _remember(self, digest: bytes, tokens: int) -> None:
        self._known[digest] = (tokens, anyio.current_time() + self._kept_s)
        self._known.move_to_end(digest)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


async def asked(clients: Clients, place: Place, url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The answer to one POST. Unlike a turn, a count does not wait for a server that is being started again. Raises
    NotCounted for any status but 200, and ApiError for what the network does."""
    timeout = httpx2.Timeout(COUNT_S, connect=CONNECT_S)
    async with faults_as_errors(place):
        request = clients.of(url).build_request("POST", url, content=body, headers=headers, timeout=timeout)
        response = await clients.of(url).send(request, stream=True)
        try:
            answer = await read_limited(response, LONGEST_ANSWER)
        finally:
            await response.aclose()
    if response.status_code != _OK:
        raise NotCounted(response.status_code, answer)
    return answer


def decoded(answer: bytes, kind: type[_T]) -> _T:
    """Raises NotCounted where the answer is something else."""
    try:
        return msgspec.json.decode(answer, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise NotCounted(_OK) from None
