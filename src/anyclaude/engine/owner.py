"""The thread of models: the only one that makes arrays. It loads weights, reads, writes, and keeps the blocks.

A fault inside MLX that Python can catch ends what runs with an error, and the loop goes on; one that aborts the process
is the server's to see.
"""

import logging
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.seam import Ids
from anyclaude.engine.conversation.conversations import Rendered
from anyclaude.engine.generation.memory import EngineMemory
from anyclaude.engine.generation.output import Answer, Markers
from anyclaude.engine.generation.row import Row
from anyclaude.engine.generation.scheduler import MAX_ROWS, Scheduler
from anyclaude.engine.model.models import Models, ResidentModel
from anyclaude.engine.model.state import Copied
from anyclaude.engine.options import Options
from anyclaude.engine.prompts import Prompted, Reader
from anyclaude.errors import ModelRefused
from anyclaude.wire.frames import Ask, Cancel, Failed, Generate, Loaded, Loading, Report, Told, Turn
from anyclaude.wire.model_config import model_name

_BUFFER_SHARE = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadWeights:
    """`request_id` is answered when the weights are in memory."""

    request_id: int
    reader: Reader


class Wake:
    """The store has room again, or news."""


Work = Prompted | LoadWeights | Cancel | Ask | Wake
Value = dict[str, Any]
Steps = Iterator[Value | None]  # something else may run after each; the answer comes last


class Owner:
    """`run` on one thread until None is put in. `put` from any."""

    def __init__(
        self,
        inbox: "queue.Queue[Work | None]",
        folder: Path,
        options: Options,
        cache: BlockCache,
        *,
        report: Callable[[Report], None],
        commit: Callable[[Prompted, Turn, Ids], None],
        manage: Callable[["Owner", Ask], Value | Steps],
    ) -> None:
        self._inbox = inbox
        self._asked: dict[int, Steps] = {}
        self._report = report
        self._manage = manage
        self.folder = folder
        self.options = options
        self.copied = Copied()
        self._commit = commit
        self._prompted: dict[int, Prompted] = {}
        self.cache = cache
        self.models = Models(options.memory_bytes, self.copied, time.monotonic)
        buffers = options.memory_bytes // _BUFFER_SHARE
        mx.set_cache_limit(buffers)  # what MLX keeps of freed memory is part of the budget, too
        memory = EngineMemory(options.memory_bytes - buffers, cache, self.models, self._in_use)
        self.scheduler = Scheduler(
            self.cache, self.copied, report=report, ended=self._ended, clock=time.monotonic, memory=memory
        )
        self._is_stopping = False

    def put(self, work: Work | None) -> None:
        """None stops the loop once what came before has been looked at; running turns are not waited for."""
        self._inbox.put(work)

    def run(self) -> None:
        while not self._is_stopping:
            self._take_in()
            if not self._is_stopping and not self.scheduler.is_idle:
                self._step()
            if not self._is_stopping:
                self._go_on_with_what_is_asked()
        self.cache.close()

    @property
    def _is_idle(self) -> bool:
        return self.scheduler.is_idle and not self._asked

    def _take_in(self) -> None:
        """Everything that waits; when nothing runs, the next thing that comes."""
        while not self._is_stopping:
            try:
                work = self._next()
            except queue.Empty:
                if not self._is_idle:
                    return
                continue
            if work is None:
                self._is_stopping = True
            else:
                self._begin(work)

    def _next(self) -> Work | None:
        """While there is nothing else to do, blocks go to the disk. Raises queue.Empty."""
        if not self._is_idle:
            return self._inbox.get_nowait()
        wait_s = self.cache.tend() if self._inbox.empty() else 0.0
        return self._inbox.get(timeout=wait_s)

    def _begin(self, work: Work) -> None:
        match work:
            case Prompted():
                self._submit(work)
            case LoadWeights():
                self._load(work)
            case Cancel():
                self.scheduler.cancel(work.id)
                self._prompted.pop(work.id, None)
                self._asked.pop(work.id, None)
            case Ask():
                told = self._manage(self, work)
                if isinstance(told, dict):
                    self._report(Told(work.id, told))
                else:
                    self._asked[work.id] = told
            case Wake():
                self.cache.tend()

    def _go_on_with_what_is_asked(self) -> None:
        """A step of each."""
        for request_id, steps in list(self._asked.items()):
            try:
                told = next(steps)
            except (RuntimeError, ValueError, MemoryError) as error:
                log.exception("what was asked of the engine failed")
                del self._asked[request_id]
                self._report(Failed(request_id, "failed", f"the engine failed: {type(error).__name__}"))
            else:
                if told is not None:
                    del self._asked[request_id]
                    self._report(Told(request_id, told))

    def _load(self, work: LoadWeights) -> None:
        wanted = work.reader.wanted
        if not self.models.has(wanted):
            size = f"{wanted.weights_bytes / 1e9:.1f} GB"
            self._report(Loading(work.request_id, f"{model_name(str(wanted.folder))}, {size}"))
        if self._model(work.request_id, work.reader) is not None:
            self._report(Loaded(work.request_id, work.reader.capabilities))

    def _model(self, request_id: int, reader: Reader) -> ResidentModel | None:
        try:
            return self.models.get(reader.wanted, self._in_use())
        except ModelRefused as error:
            self._report(Failed(request_id, "refused", error.message))
            return None

    def _in_use(self) -> frozenset[Path]:
        return frozenset(model.folder for model in self.scheduler.models_in_use)

    def _submit(self, work: Prompted) -> None:
        if self.scheduler.n_rows >= MAX_ROWS:
            self._report(Failed(work.request.id, "overloaded", f"{MAX_ROWS} requests wait for the engine already"))
            return
        model = self._model(work.request.id, work.reader)
        if model is None:
            return
        self.cache.name_model(model.fingerprint, model.name)
        row = _row(work, model)
        if row.answer is not None:
            self._prompted[row.id] = work
        self.scheduler.submit(row)

    def _ended(self, row: Row) -> None:
        assert row.answer is not None
        self._commit(self._prompted.pop(row.id), row.answer.turn, row.generated_ids())

    def _step(self) -> None:
        try:
            self.scheduler.step()
        except Exception as error:
            # What runs is lost, but not the engine: the server's clients try again.
            log.exception("a step of the engine failed")
            self._prompted.clear()
            for request_id in self.scheduler.drop_all():
                self._report(Failed(request_id, "failed", f"the engine failed: {type(error).__name__}"))
            if not isinstance(error, RuntimeError | ValueError | MemoryError):
                raise

    def loaded_models(self) -> list[dict[str, Any]]:
        return [{"folder": str(model.folder), "bytes": model.nbytes} for model in self.models]

    def statistics(self) -> Value:
        return {
            "cache": msgspec.to_builtins(self.cache.statistics()),
            "scheduler": msgspec.to_builtins(self.scheduler.statistics()),
            "copied": asdict(self.copied),
            "models": self.loaded_models(),
            "memory": {
                "active": mx.get_active_memory(),
                "peak": mx.get_peak_memory(),
                "cached": mx.get_cache_memory(),
                "budget": self.options.memory_bytes,
            },
        }


def _row(work: Prompted, model: ResidentModel) -> Row:
    request, reader, rendered = work.request, work.reader, work.rendered
    row = Row(
        id=request.id,
        model=model,
        ids=work.ids,
        head_end=rendered.head_end if rendered else 0,
        ends=rendered.ends if rendered else (),
        request_class="main",
    )
    if not isinstance(request, Generate):
        return row
    assert rendered is not None
    left = reader.capabilities.window - row.n_prompt
    row.request_class = request.request_class
    row.is_private = request.is_private
    row.limit = min(request.max_tokens, left)
    row.limit_reason = "length" if request.max_tokens <= left else "window"
    row.answer = Answer(
        request.id,
        _markers(reader, rendered),
        reader.parser,
        request.chat.tools,
        request.stop_sequences,
        begins_in_reasoning=rendered.begins_in_reasoning,
    )
    row.decoder = reader.vocabulary.decoder()
    row.sampler = model.samplers.of(request.sampling)
    row.processors = (work.constraint,) if work.constraint else ()
    return row


def _markers(reader: Reader, rendered: Rendered) -> Markers:
    shape = reader.shape
    if not shape.words_open:
        return Markers(shape.think_open, shape.think_close)
    role_open = reader.vocabulary.decode(rendered.generation)
    return Markers(shape.think_open, shape.think_close, shape.words_open, role_open)
