"""The threads of the engine's process, wired: requests go to the thread of prompts, from there to the thread of models,
and answers to the server and to the committed conversations."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.seam import Ids
from anyclaude.engine.cache.store import BlockStore
from anyclaude.engine.conversation.turn_store import TurnStore
from anyclaude.engine.management import manage
from anyclaude.engine.model.adapter import versions
from anyclaude.engine.model.state import StateCodec
from anyclaude.engine.options import Options, store_limits
from anyclaude.engine.owner import LoadWeights, Owner, Wake, Work
from anyclaude.engine.prompts import Prompted, Prompts
from anyclaude.wire.frames import Ask, Cancel, CountTokens, Failed, Generate, Load, Prepare, Report, Request, Turn

_MAX_WAITING = 256
log = logging.getLogger(__name__)


class Threads:
    """`put` frames once started; `stop` writes down what is worth it and returns."""

    def __init__(self, folder: Path, options: Options, report: Callable[[Report], None]) -> None:
        self._report = report
        self._inbox: queue.Queue[Request | Callable[[], None] | None] = queue.Queue()
        limits = store_limits(options)
        to_models: queue.Queue[Work | None] = queue.Queue()
        store = None
        if limits.budget_bytes:
            store = BlockStore(folder / "blocks", limits, wake=lambda: to_models.put(Wake()))
        cache = BlockCache(options.kv_memory_bytes, store, StateCodec())
        self._to_models = to_models
        self._owner = Owner(
            to_models,
            folder,
            options,
            cache,
            report=report,
            commit=self._commit,
            manage=lambda owner, ask: manage(owner, ask, self._forget),
        )
        self._prompts = Prompts(
            TurnStore(folder / "turns.sqlite3" if limits.budget_bytes else None),
            versions(),
            report=report,
            pass_on=self._owner.put,
            today=date.today,
        )
        self._threads = [
            threading.Thread(target=self._owner.run, name="models", daemon=True),
            threading.Thread(target=self._run_prompts, name="prompts", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def put(self, request: Request) -> None:
        n_waiting = self._inbox.qsize() + self._to_models.qsize()
        if isinstance(request, Generate | CountTokens) and n_waiting >= _MAX_WAITING:
            self._report(Failed(request.id, "overloaded", f"{_MAX_WAITING} requests wait for the engine already"))
            return
        if isinstance(request, Cancel):  # at once where it runs already; again behind what is still to be rendered
            self._owner.put(request)
        self._inbox.put(request)

    def stop(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        self._owner.put(None)
        self._inbox.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run_prompts(self) -> None:
        """What is still to be committed or forgotten stands in the queue before its end."""
        while (item := self._inbox.get()) is not None:
            try:
                item() if callable(item) else self._handle(item)
            except Exception as error:  # the edge of one request: the others go on
                log.exception("the thread of prompts failed")
                if isinstance(item, Load | Generate | CountTokens | Prepare):
                    self._report(_failure(item.id, error))

    def _handle(self, request: Request) -> None:
        match request:
            case Load():
                if (reader := self._prompts.load(request)) is not None:
                    self._owner.put(LoadWeights(request.id, reader))
            case Generate():
                self._prompts.generate(request)
            case CountTokens():
                self._prompts.count(request)
            case Prepare():
                self._prompts.prepare(request)
            case Cancel() | Ask():
                self._owner.put(request)

    def _commit(self, prompted: Prompted, answer: Turn, generated: Ids) -> None:
        """On the thread of models, before the server hears that the turn has ended: what the client sends next comes
        after this in the queue."""
        self._inbox.put(lambda: self._prompts.commit(prompted, answer, generated))

    def _forget(self) -> None:
        self._inbox.put(self._prompts.forget)


def _failure(request_id: int, error: Exception) -> Failed:
    if isinstance(error, RecursionError):
        return Failed(request_id, "invalid", "the request is nested too deeply")
    return Failed(request_id, "failed", f"the engine failed on this request: {type(error).__name__}")
