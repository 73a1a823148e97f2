"""Frames to the server, from any thread."""

import contextlib
import queue
import socket

from anyclaude.wire.frames import Report, encode_frame

_MAX_FRAMES = 4096
_MAX_BYTES = 1 << 16


class Writer:
    """Call it with a report. When the server does not read, whoever reports waits; when it is gone, nobody does: the
    reader of its frames ends the process, once what is worth it is written down."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames: queue.Queue[bytes] = queue.Queue(_MAX_FRAMES)

    def __call__(self, report: Report) -> None:
        self._frames.put(encode_frame(report))

    def run(self) -> None:
        """On a thread of its own, for as long as the process lives."""
        while True:
            data = bytearray(self._frames.get())
            while len(data) < _MAX_BYTES and not self._frames.empty():
                data += self._frames.get()
            with contextlib.suppress(OSError):
                self._sock.sendall(data)
