"""HTTP clients to model servers. To this machine itself no proxy variable applies; redirects are never followed."""

import ipaddress
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import httpx2
from msgspec import Struct

from anyclaude.errors import BackendFailed, BackendTimeout

CONNECT_S = 5.0
KEEP_S = 2.0
RESTART_S = 20.0
RETRY_S = 0.5
_MAX_READ = 1 << 20
log = logging.getLogger(__name__)


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Clients:
    """One client for this machine, one for the rest, made when first needed. `answered` are the URLs that have."""

    def __init__(self) -> None:
        self.answered: set[str] = set()
        self._local: httpx2.AsyncClient | None = None
        self._remote: httpx2.AsyncClient | None = None

    def of(self, url: str) -> httpx2.AsyncClient:
        if is_loopback(url):
            if self._local is None:
                # Kept for less time than any server keeps it, so that none is closed just as it is used.
                limits = httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_S)
                headers = {"accept-encoding": "identity"}
                self._local = httpx2.AsyncClient(trust_env=False, limits=limits, headers=headers)
            return self._local
        if self._remote is None:
            self._remote = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=None))
        return self._remote

    async def close(self) -> None:
        for client in (self._local, self._remote):
            if client is not None:
                await client.aclose()
        self._local = self._remote = None


class Place(Struct, frozen=True):
    """One server as messages name it, and how long it may be silent."""

    name: str
    silence_s: float


@asynccontextmanager
async def posted(
    clients: Clients, place: Place, url: str, body: bytes, headers: dict[str, str]
) -> AsyncGenerator[httpx2.Response]:
    """A POST whose answer is read as it comes. Leaving early closes the connection, so that the server stops working.
    Raises ApiError for what the network does; the status is the caller's to read."""
    timeout = httpx2.Timeout(place.silence_s, connect=CONNECT_S)
    async with faults_as_errors(place):
        request = clients.of(url).build_request("POST", url, content=body, headers=headers, timeout=timeout)
        response = await _sent(clients, url, request)
        try:
            log.debug("%s answered HTTP %d", place.name, response.status_code)
            yield response
        finally:
            await response.aclose()


async def _sent(clients: Clients, url: str, request: httpx2.Request) -> httpx2.Response:
    """A server that has answered before and now refuses connections is probably being started again: it is waited for,
    because the end of a long piece of work would be a high price."""
    deadline = anyio.current_time() + (RESTART_S if url in clients.answered else 0.0)
    while True:
        try:
            response = await clients.of(url).send(request, stream=True)
        except httpx2.ConnectError:
            if anyio.current_time() >= deadline:
                raise
            await anyio.sleep(RETRY_S)
        else:
            clients.answered.add(url)
            return response


async def read_limited(response: httpx2.Response, limit: int = _MAX_READ) -> bytes:
    """The first mebibyte of a body: an error page has no business being longer."""
    body = bytearray()
    async for data in response.aiter_bytes():
        body += data
        if len(body) >= limit:
            break
    return bytes(body)


@asynccontextmanager
async def faults_as_errors(place: Place) -> AsyncGenerator[None]:
    """What the network does to us, once, as errors that a person can act on."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        problem = f"{place.name} does not answer ({reason(error)}); start it and send the prompt again"
        raise BackendFailed(problem, retry=False) from error
    except httpx2.ReadTimeout as error:
        problem = f"{place.name} sent nothing for {place.silence_s:.0f} s (backend_silence_s)"
        raise BackendTimeout(problem, retry=False) from error
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise BackendFailed(f"{place.name} broke the connection: {reason(error)}") from error
    except httpx2.InvalidURL as error:
        raise BackendFailed(f"{place.name}: not a URL: {error}", retry=False) from error


def reason(error: Exception) -> str:
    """A fault of the network in words of the system, not of a library."""
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.lower()
    text = str(error)
    return "connection refused" if text == "All connection attempts failed" else text or type(error).__name__
