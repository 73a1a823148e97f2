"""One file of the store: what it is, checked by a digest of its own, then the data, checked by another.

    4 bytes  AKVB
    4 bytes  format version          } little-endian
    4 bytes  length of the head      }
    head     msgpack: `Head`
    32 bytes SHA-256 of all before
    data     to the end

Written under a temporary name, synced, and renamed: a file under its own name is whole. Sizes are taken from the file
system, never from the file.
"""

import errno
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

import msgspec
import numpy as np
from msgspec import Struct

from anyclaude.engine.cache.block import digest_of
from anyclaude.engine.cache.seam import Buffer, Header, Read, Stored

SUFFIX = ".kv"
MAGIC = b"AKVB"
VERSION = 1
MAX_HEAD = 1 << 20
_START = struct.Struct("<4sII")
_DIGEST_SIZE = 32
_MAX_PARTS = 512  # of one writev


class Damaged(ValueError):
    """It is not what was written: cut, changed, or not ours."""


class Foreign(Damaged):
    """Another version of the format."""


class Head(Struct, frozen=True):
    """`header` is the codec's; `model` is for people."""

    entry: Stored
    header: Header
    model: str
    data_length: int
    data_digest: bytes


_decoder = msgspec.msgpack.Decoder(Head)


def file_name(name: bytes) -> str:
    return name.hex() + SUFFIX


def write_file(folder: int, entry: Stored, header: Header, buffers: Sequence[Buffer], model: str) -> int:
    """Into the folder of that descriptor; the folder itself is not synced. How many bytes it has. Raises OSError."""
    views = [memoryview(buffer).cast("B") for buffer in buffers if len(memoryview(buffer).cast("B"))]
    digest = hashlib.sha256()
    for view in views:
        digest.update(view)
    start = _packed(Head(entry, header, model, sum(map(len, views)), digest.digest()))
    temporary = f".{entry.name.hex()}.tmp"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        try:
            n_bytes = _write_all(descriptor, [memoryview(start), *views])
            sync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, file_name(entry.name), src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
    return n_bytes


def _packed(head: Head) -> bytes:
    body = msgspec.msgpack.encode(head)
    start = _START.pack(MAGIC, VERSION, len(body)) + body
    return start + hashlib.sha256(start).digest()


def _write_all(descriptor: int, views: list[memoryview]) -> int:
    n_bytes = 0
    while views:
        n = os.writev(descriptor, views[:_MAX_PARTS])
        n_bytes += n
        while views and n >= len(views[0]):
            n -= len(views.pop(0))
        if n:
            views[0] = views[0][n:]
    return n_bytes


def sync(descriptor: int) -> None:
    """To the disk itself where the system knows the difference (macOS), and the file system can."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        with suppress(OSError):
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def read_head(folder: int, name: bytes) -> tuple[Head, int]:
    """Without the data; and the file's size. Raises OSError or Damaged."""
    with _opened(folder, name) as (descriptor, size):
        start = os.pread(descriptor, _START.size, 0)
        length = _head_length(start)
        rest = os.pread(descriptor, length + _DIGEST_SIZE, _START.size)
        head, at = _head(start + rest, name)
        if at + head.data_length != size:
            raise Damaged("it is cut off")
        return head, size


def read_file(folder: int, name: bytes) -> Read:
    """Whole and checked. Raises OSError or Damaged."""
    with _opened(folder, name) as (descriptor, size):
        content = np.empty(size, np.uint8).data
        n_read = 0
        while n_read < size:
            n = os.readv(descriptor, [content[n_read:]])
            if n == 0:
                raise Damaged("it is cut off")
            n_read += n
    head, at = _head(content, name)
    data = content[at:]
    if len(data) != head.data_length or hashlib.sha256(data).digest() != head.data_digest:
        raise Damaged("its data is not what was written")
    return Read(head.entry, head.header, data)


@contextmanager
def _opened(folder: int, name: bytes) -> Generator[tuple[int, int]]:
    try:
        descriptor = os.open(file_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Damaged("it is a link") from None
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Damaged("it is not a file")
        yield descriptor, found.st_size
    finally:
        os.close(descriptor)


def _head_length(start: bytes | memoryview) -> int:
    if len(start) < _START.size:
        raise Damaged("it is cut off")
    magic, version, length = _START.unpack_from(start)
    if magic != MAGIC:
        raise Damaged("it is not a block file")
    if version != VERSION:
        raise Foreign(f"its format is version {version}, not {VERSION}")
    if length > MAX_HEAD:
        raise Damaged("its head is too long")
    return length


def _head(content: bytes | memoryview, name: bytes) -> tuple[Head, int]:
    """And where the data begins."""
    end = _START.size + _head_length(content)
    at = end + _DIGEST_SIZE
    if hashlib.sha256(content[:end]).digest() != bytes(content[end:at]):
        raise Damaged("its head is not what was written")
    try:
        head = _decoder.decode(content[_START.size : end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Damaged(f"its head cannot be read: {error}") from None
    entry = head.entry
    if entry.name != name or digest_of(entry.kind, entry.parent, entry.ids) != name:
        raise Damaged("it is another block's file")
    return head, at
