"""The engine tried on the machine it runs on: `anyclaude doctor --engine`. A report that a person can send.

With a small model of random weights, or the one in a folder that is named: does state that went through blocks and
through a file give the same answer, does a mask forbid what it should, how fast is state written and read, what memory
is taken. Every figure is measured here and now.
"""

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import LayerCache, Model
from anyclaude.engine.model.state import ROOM, Copied, Layout, StateCodec, StatePayload, number

_N_PROMPT, _N_BLOCK, _N_ANSWER = 2048, 256, 16
_SPEED_BYTES = 64 << 20


def selftest(model_folder: Path | None, scratch: Path) -> dict[str, Any]:
    """Raises ModelRefused for a folder that cannot be loaded."""
    mx.reset_peak_memory()
    model = adapter.load(model_folder)[0] if model_folder else adapter.random_model()
    first, n_logits = adapter.first_step(model)
    layout = Layout.of(first, Copied())
    mlx_version, mlx_lm_version = adapter.versions()
    return {
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "device": str(mx.default_device()),
            "mlx": mlx_version,
            "mlx_lm": mlx_lm_version,
            "python": platform.python_version(),
        },
        "model": str(model_folder) if model_folder else "random weights",
        "parity": _parity(model, layout, n_logits),
        "mask": _mask(),
        "reload": _reload(scratch),
        "memory": {"active_bytes": mx.get_active_memory(), "peak_bytes": mx.get_peak_memory()},
    }


def _parity(model: Model, layout: Layout, n_logits: int) -> dict[str, Any]:
    """The same prompt read at once, and from blocks that went through bytes."""
    ids = np.random.default_rng(0).integers(0, n_logits, _N_PROMPT).astype(np.uint32)
    caches = adapter.new_caches(model)
    read_s = _timed(lambda: _read(model, caches, ids[:-1]))
    codec, n = StateCodec(), _N_PROMPT - 1
    cuts = [(start, min(start + _N_BLOCK, n)) for start in range(0, n, _N_BLOCK)]
    pieces = [(_through_bytes(codec, layout.cut(caches, 0, first, last)), last - first) for first, last in cuts]
    snapshot = _through_bytes(codec, layout.snapshot(caches, 0)) if layout.needs_snapshots else None
    again: list[LayerCache] = []

    def restore() -> None:
        again.extend(layout.restore(model, pieces, snapshot, ROOM))

    restore_s = _timed(restore)
    ours, theirs = _answer(model, caches, int(ids[-1])), _answer(model, again, int(ids[-1]))
    return {
        "tokens": _N_PROMPT,
        "equal_tokens": ours[0] == theirs[0],
        "largest_difference": max(number(mx.abs(a - b).max()) for a, b in zip(ours[1], theirs[1], strict=True)),
        "read_s": read_s,
        "restore_s": restore_s,
    }


def _read(model: Model, caches: list[LayerCache], ids: np.ndarray[Any, np.dtype[np.uint32]]) -> None:
    model(mx.array(ids)[None], cache=caches)
    mx.eval([cache.state for cache in caches])


def _through_bytes(codec: StateCodec, payload: StatePayload) -> StatePayload:
    header, buffers = codec.pack(payload)
    return codec.unpack(header, memoryview(b"".join(buffers)))


def _answer(model: Model, caches: list[LayerCache], token: int) -> tuple[list[int], list[mx.array]]:
    """Greedy tokens, and the log-probabilities that they were chosen by."""
    tokens: list[int] = []
    chances: list[mx.array] = []
    for _ in range(_N_ANSWER):
        logits = model(mx.array([[token]]), cache=caches)[:, -1, :].astype(mx.float32)
        chances.append(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
        token = int(number(mx.argmax(logits, axis=-1)))
        tokens.append(token)
    return tokens, chances


def _mask() -> dict[str, Any]:
    """Only one token is allowed, and it is the least likely one."""
    logits = mx.arange(512, 0, -1).astype(mx.float32)[None]
    allowed = np.zeros(512, np.bool_)
    allowed[511] = True
    chosen: list[int] = []

    def choose() -> None:
        masked = mx.where(mx.array(allowed.tolist()), logits, mx.array(-float("inf"), logits.dtype))
        chosen.append(int(number(mx.argmax(masked, axis=-1))))

    choose()
    return {"holds": chosen == [511], "seconds": _timed(choose)}


def _reload(scratch: Path) -> dict[str, Any]:
    """Bytes written and synced, and read again: from the system's memory, most likely, so the disk may be slower."""
    data = os.urandom(1 << 20) * (_SPEED_BYTES >> 20)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder, "speed")

        def write() -> None:
            with path.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

        write_s = _timed(write)
        read_s = _timed(lambda: mx.eval(mx.array(np.frombuffer(path.read_bytes(), np.uint8))))
    return {"bytes": _SPEED_BYTES, "write_s": write_s, "read_s": read_s}


def _timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
