"""HTTP clients to model servers. To this machine itself no proxy variable applies; redirects are never followed."""

import ipaddress
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2

from anyclaude.errors import BackendFailed, BackendTimeout

CONNECT_S = 5.0
KEEP_S = 2.0


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Clients:
    """One client for this machine, one for the rest, made when first needed."""

    def __init__(self) -> None:
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


@asynccontextmanager
async def faults_as_errors(server: str, silence_s: float) -> AsyncGenerator[None]:
    """What the network does to us, once, as errors that a person can act on. `server` is its kind and address."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        problem = f"{server} does not answer ({_reason(error)}); start it and send the prompt again"
        raise BackendFailed(problem, retry=False) from error
    except httpx2.ReadTimeout as error:
        problem = f"{server} sent nothing for {silence_s:.0f} s (backend_silence_s)"
        raise BackendTimeout(problem, retry=False) from error
    except (httpx2.TransportError, httpx2.DecodingError) as error:
        raise BackendFailed(f"{server} broke the connection: {_reason(error)}") from error
    except httpx2.InvalidURL as error:
        raise BackendFailed(f"{server}: not a URL: {error}", retry=False) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
