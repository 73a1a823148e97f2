"""Server-sent events (WHATWG HTML, "Server-sent events"): bytes in any chunking to events, and back.

Comments are kept, because servers tell their progress in them.
"""

from collections.abc import Iterator

from msgspec import Struct


class ServerEvent(Struct, frozen=True):
    """One dispatched event. `name` is empty where the stream names none."""

    name: str
    data: bytes


class Comment(Struct, frozen=True):
    """A line that starts with a colon, without the colon and one space after it."""

    text: str


_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SseDecoder:
    """Incremental: `feed` any chunking of the bytes, get whole events."""

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self._data: list[bytes] = []
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[ServerEvent | Comment]:
        self._buffer += chunk
        if not self._started:
            if len(self._buffer) < 3 and _BYTE_ORDER_MARK.startswith(self._buffer):
                return
            self._buffer = self._buffer.removeprefix(_BYTE_ORDER_MARK)
            self._started = True
        *lines, self._buffer = self._split(self._buffer)
        for line in lines:
            item = self._line(line)
            if item is not None:
                yield item

    @staticmethod
    def _split(buffer: bytes) -> list[bytes]:
        """Whole lines and the rest. A final CR stays in the rest: the LF of a CRLF may be still to come."""
        if b"\r" not in buffer:
            return buffer.split(b"\n")
        held = b"\r" if buffer.endswith(b"\r") else b""
        body = buffer[: len(buffer) - len(held)]
        lines = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        lines[-1] += held
        return lines

    def _line(self, line: bytes) -> ServerEvent | Comment | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not field:
            return Comment(value.decode("utf-8", "replace"))
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data = self._name, self._data
        self._name, self._data = "", []
        if not data:
            return None
        return ServerEvent(name, data[0] if len(data) == 1 else b"\n".join(data))


def encode_sse(name: str, data: bytes) -> bytes:
    """One event. `data` holds no line break, as JSON written compactly never does."""
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
