"""A large file of the hub, and everything that can happen to it on the way."""

import fcntl
import hashlib
from pathlib import Path

import httpx2
import pytest

from anyclaude.errors import DownloadFailed
from anyclaude.launch.weights import Remote, fetch
from tests.support.backend import Exchange, ScriptedBackend

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


class Hub(ScriptedBackend):
    """Sends `data` as `answer` says; `ranges` are what was asked for."""

    def __init__(self, *, data: bytes = DATA, knows_ranges: bool = True, most: int | None = None) -> None:
        super().__init__(lambda exchange: exchange.json(404, {}))
        self.data, self.knows_ranges, self.most = data, knows_ranges, most
        self.ranges: list[str | None] = []

    def __enter__(self) -> "Hub":
        super().__enter__()
        return self

    def get(self, exchange: Exchange) -> None:
        wanted = exchange.headers.get("range")
        self.ranges.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.knows_ranges else 0
        rest = self.data[start:]
        exchange.start(206 if start else 200, "application/octet-stream", content_length=str(len(rest)))
        exchange.send(rest if self.most is None else rest[: self.most])

    def fetch(self, blobs: Path, *, etag: str = SHA256, n_bytes: int = len(DATA)) -> list[int]:
        added: list[int] = []
        remote = Remote("model.safetensors", f"{self.url}/f", etag, n_bytes)
        fetch(remote, blobs, {"x": "y"}, added.append, httpx2.Response.raise_for_status)
        return added


def partial(blobs: Path) -> Path:
    return blobs / f"{SHA256}.anyclaude.incomplete"


def test_a_file_that_is_whole_and_right_gets_its_name(tmp_path: Path) -> None:
    with Hub() as hub:
        assert sum(hub.fetch(tmp_path)) == len(DATA)
        assert hub.fetch(tmp_path) == [len(DATA)]
        assert hub.ranges == [None]
    assert [path.name for path in tmp_path.iterdir()] == [SHA256]
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_what_an_earlier_try_brought_is_not_asked_for_again(tmp_path: Path) -> None:
    partial(tmp_path).write_bytes(DATA[:5000])
    with Hub() as hub:
        added = hub.fetch(tmp_path)
        assert hub.ranges == ["bytes=5000-"]
    assert (added[0], sum(added)) == (5000, len(DATA))
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_a_server_that_sends_everything_again_is_taken_at_its_word(tmp_path: Path) -> None:
    partial(tmp_path).write_bytes(b"other" * 100)
    with Hub(knows_ranges=False) as hub:
        assert sum(hub.fetch(tmp_path)) == len(DATA)
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_connections_that_break_are_taken_up_again_as_long_as_something_comes(tmp_path: Path) -> None:
    with Hub(most=1000) as hub:
        assert sum(hub.fetch(tmp_path)) == len(DATA)
        assert hub.ranges[:3] == [None, "bytes=1000-", "bytes=2000-"]
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_connections_that_bring_nothing_are_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    partial(tmp_path).write_bytes(DATA[:5000])
    with Hub(most=0) as hub:
        with pytest.raises(httpx2.RemoteProtocolError):
            hub.fetch(tmp_path)
        assert len(hub.ranges) == 5
    assert partial(tmp_path).read_bytes() == DATA[:5000]


def test_a_file_that_came_damaged_is_thrown_away(tmp_path: Path) -> None:
    with Hub(data=DATA[:-1] + b"x") as hub, pytest.raises(DownloadFailed, match="came damaged and was thrown away"):
        hub.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_try_that_is_longer_than_the_file_is_cut_and_checked(tmp_path: Path) -> None:
    partial(tmp_path).write_bytes(DATA + b"more")
    with Hub() as hub:
        hub.fetch(tmp_path)
        assert hub.ranges == []
    assert (tmp_path / SHA256).read_bytes() == DATA


def test_a_file_that_is_shorter_than_announced_is_an_error(tmp_path: Path) -> None:
    with Hub() as hub, pytest.raises(DownloadFailed, match="ends after 10,240 of 10,241 bytes"):
        hub.fetch(tmp_path, n_bytes=len(DATA) + 1)


def test_a_refusal_is_no_content(tmp_path: Path) -> None:
    with ScriptedBackend(lambda exchange: exchange.json(404, {})) as backend:
        remote = Remote("f", f"{backend.url}/none", SHA256, 10)
        with pytest.raises(httpx2.HTTPStatusError):
            fetch(remote, tmp_path, {}, [].append, httpx2.Response.raise_for_status)
    assert partial(tmp_path).read_bytes() == b""


def test_two_at_once_do_not_write_into_one_file(tmp_path: Path) -> None:
    with partial(tmp_path).open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Hub() as hub, pytest.raises(DownloadFailed, match="is being downloaded by another process"):
            hub.fetch(tmp_path)
