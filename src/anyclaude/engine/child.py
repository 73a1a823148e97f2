"""The engine's process: frames in, frames out.

    python -m anyclaude.engine.child DESCRIPTOR CACHE_FOLDER LOG_FILE OPTIONS_JSON

It says that it is ready before it imports mlx-lm, which takes seconds. It ends when the server's side of the socket
closes or on SIGTERM, whatever it is doing: it never outlives its server.
"""

import logging
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from logging.handlers import RotatingFileHandler
from pathlib import Path

from anyclaude import __version__
from anyclaude.engine.model.blas import load_openblas
from anyclaude.engine.options import read_options
from anyclaude.engine.writer import Writer
from anyclaude.paths import make_if_possible
from anyclaude.wire.frames import BadFrame, FrameReader, Ready, Request, decode_request

_LOG_BYTES, _N_LOGS = 5_000_000, 2
_FLUSH_S = 3.0  # less than the server waits
log = logging.getLogger("anyclaude.engine.child")  # this module runs as __main__


def main(arguments: list[str]) -> None:
    descriptor, folder, log_file = int(arguments[0]), Path(arguments[1]), Path(arguments[2])
    options = read_options(arguments[3])
    _log_to(log_file)
    sock = socket.socket(fileno=descriptor)
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # the terminal's signals are for the client
    asked_to_end = _sigterm()
    blas = load_openblas()
    writer = Writer(sock)
    threading.Thread(target=writer.run, name="writer", daemon=True).start()
    writer(_ready(blas))
    from anyclaude.engine.threads import Threads  # imports mlx-lm

    threading.excepthook = _end_all
    if not make_if_possible(folder):
        log.warning("nothing is kept on disk: %s cannot be created", folder)
    threads = Threads(folder, options, writer)
    threads.start()
    try:
        _read(sock, asked_to_end, threads.put)
    except (OSError, BadFrame) as error:
        log.warning("the server's frames ended badly: %s", error)
    threads.stop(_FLUSH_S)
    os._exit(0)  # threads inside MLX cannot be asked to end


def _sigterm() -> socket.socket:
    """Something to read when it has come. A handler alone would not do: what comes just before the main thread waits
    for the server is handled only after the next frame."""
    told, teller = socket.socketpair()
    teller.setblocking(False)
    signal.set_wakeup_fd(teller.detach())
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    return told


def _end_all(fault: threading.ExceptHookArgs) -> None:
    """A thread that dies takes the process with it: the server starts another, which a half-dead one would prevent."""
    log.error("the engine ends", exc_info=fault.exc_value)
    os._exit(70)


def _ready(blas: str | None) -> Ready:
    import mlx.core as mx  # after OpenBLAS

    device = f"{mx.default_device()}" + (f" with {blas}" if blas else "")
    log.info("engine %s, mlx %s on %s", __version__, version("mlx"), device)
    return Ready(__version__, version("mlx"), device)


def _read(sock: socket.socket, asked_to_end: socket.socket, put: Callable[[Request], None]) -> None:
    """Until the server closes its side, or we are asked to end. Raises OSError or BadFrame."""
    reader = FrameReader()
    with selectors.DefaultSelector() as either:
        for each in (sock, asked_to_end):
            either.register(each, selectors.EVENT_READ)
        while not any(key.fileobj is asked_to_end for key, _ in either.select()) and (data := sock.recv(1 << 20)):
            for body in reader.feed(data):
                put(decode_request(body))


def _log_to(file: Path) -> None:
    """A file of its own, rotated and private: two processes cannot share a rotated file."""
    os.umask(0o077)
    handler = RotatingFileHandler(str(file), maxBytes=_LOG_BYTES, backupCount=_N_LOGS, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("anyclaude").setLevel(logging.INFO)


if __name__ == "__main__":
    main(sys.argv[1:])
