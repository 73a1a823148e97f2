"""One large file of the hub, fetched so that a later try goes on where this one stopped: huggingface_hub itself begins
such a file anew. It stands under its final name only when it is whole and, where the hub tells its SHA-256, right.
"""

import fcntl
import hashlib
import io
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
from msgspec import Struct

from anyclaude.errors import DownloadFailed

_TRIES = 5  # in a row without a byte
_SHA256 = 64
_UNFINISHED = ".anyclaude.incomplete"  # the hub's own clean-up knows files of that ending


class Remote(Struct, frozen=True):
    """A file of the hub at one commit. `etag` names its content, for large files by SHA-256."""

    name: str
    url: str
    etag: str
    n_bytes: int


Check = Callable[[httpx2.Response], object]


def fetch(remote: Remote, blobs: Path, headers: Mapping[str, str], add: Callable[[int], None], check: Check) -> None:
    """Into `blobs`, under the name of its content. `check` raises for a refusal of the hub's. Raises DownloadFailed,
    OSError or httpx2.HTTPError; what came is kept, unless it is wrong."""
    whole = blobs / remote.etag
    if whole.exists():
        add(remote.n_bytes)
        return
    partial = blobs / f"{remote.etag}{_UNFINISHED}"
    with _alone(partial, remote.name) as file:
        _fill(file, remote, headers, add, check)
        if not _is_right(file, remote):
            partial.unlink()
            raise DownloadFailed(f"{remote.name} came damaged and was thrown away; the same command fetches it again")
        partial.rename(whole)


@contextmanager
def _alone(partial: Path, name: str) -> Generator[io.FileIO]:
    """Opened without a buffer: what was received is in the file, however this process ends."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab+", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadFailed(f"{name} is being downloaded by another process") from None
        except OSError:  # some network file systems cannot
            pass
        yield file


def _fill(
    file: io.FileIO,
    remote: Remote,
    headers: Mapping[str, str],
    add: Callable[[int], None],
    check: Check,
) -> None:
    """Until it is as long as the hub said. A connection that breaks is taken up again where it broke."""
    tries_left, has = _TRIES, min(file.seek(0, 2), remote.n_bytes)
    file.truncate(has)
    add(has)
    while has < remote.n_bytes:
        before = has
        try:
            for length in _lengths(file, remote, headers, has, check, add):
                has = length
        except (httpx2.ConnectError, httpx2.TimeoutException, httpx2.RemoteProtocolError, httpx2.ReadError):
            tries_left = _TRIES if has > before else tries_left - 1
            if tries_left == 0:
                raise
        else:
            if has < remote.n_bytes:
                raise DownloadFailed(f"{remote.name} ends after {has:,} of {remote.n_bytes:,} bytes")


def _lengths(
    file: io.FileIO, remote: Remote, headers: Mapping[str, str], start: int, check: Check, add: Callable[[int], None]
) -> Iterator[int]:
    """Appends what comes from `start` on; yields the file's length after each piece."""
    wanted = dict(headers) | {"accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
    with (
        httpx2.Client(follow_redirects=True, timeout=httpx2.Timeout(30.0)) as client,
        client.stream("GET", remote.url, headers=wanted) as response,
    ):
        check(response)
        if start and response.status_code != 206:  # the whole file is sent
            add(-start)
            file.truncate(0)
        for piece in response.iter_raw():
            file.write(piece)
            add(len(piece))
            yield file.tell()


def _is_right(file: io.FileIO, remote: Remote) -> bool:
    if file.seek(0, 2) != remote.n_bytes:
        return False
    if len(remote.etag) != _SHA256:
        return True
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest() == remote.etag
