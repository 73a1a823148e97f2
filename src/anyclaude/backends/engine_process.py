"""The embedded engine as its server has it: one child process, started when it is first needed.

Each request gets its own reports and is cancelled when its reader leaves. When the child dies its requests end with
`Overloaded`, and the next request starts another one, sooner after the first death than after the tenth. Models are
loaded again when a request needs them.
"""

import asyncio
import itertools
import logging
import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.backends.engine_child import Child, EngineCommand
from anyclaude.backends.engine_inbox import Inbox
from anyclaude.errors import (
    ApiError,
    BackendFailed,
    BackendTimeout,
    InvalidRequest,
    Missing,
    Overloaded,
    PromptTooLong,
    UnsafeFolder,
)
from anyclaude.wire.frames import (
    Ask,
    AskWhat,
    Capabilities,
    Counted,
    CountTokens,
    Failed,
    Finished,
    Generate,
    Load,
    Loaded,
    Loading,
    Prepare,
    Report,
    Told,
)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0
_WAIT_S = 5.0  # for a pause that is shorter a request waits; else the client tries again later
_LAST = (Finished, Counted, Loaded, Told)
Asked = Load | Generate | CountTokens | Prepare | Ask
_Last = TypeVar("_Last", Finished, Counted, Loaded, Told)
log = logging.getLogger(__name__)


class EngineStatistics(Struct, frozen=True, kw_only=True):
    """`n_ends` counts the children that died on their own; `last_end` says how the last one did. `models` are those
    that were loaded, `loading` is what the engine says of the one that is being loaded."""

    is_running: bool
    pid: int | None
    n_ends: int
    last_end: str | None
    n_requests: int
    models: tuple[str, ...]
    loading: str | None
    version: str | None
    mlx: str | None
    device: str | None


class EngineProcess:
    def __init__(self, command: EngineCommand) -> None:
        self._command = command
        self._options = command.options
        self._child: Child | None = None
        self._starting = anyio.Lock()
        self._ids = itertools.count(1)
        self._known: dict[str, Capabilities] = {}
        self._loading: dict[str, str] = {}
        self._n_ends = 0
        self._n_failures = 0  # deaths in a row without an answer in between
        self._ended_at = -math.inf
        self._last_end: str | None = None
        self._is_closing = False

    @property
    def is_running(self) -> bool:
        return self._child is not None and self._child.ended is None

    def use_options(self, options: Mapping[str, object]) -> None:
        """For the next start: an engine that runs keeps those that it was started with."""
        if options:
            self._options = dict(options)

    async def request(self, frame: Asked, *, silence_s: float = math.inf) -> AsyncGenerator[Report]:
        """What answers it, up to the last. The frame's id is replaced. Closing the generator early cancels it in the
        engine. Raises ApiError for `Failed`, and for what happens to the child."""
        child = await self._ready_child()
        request_id = next(self._ids)
        inbox = child.open(request_id)
        try:
            await child.send(replace(frame, id=request_id))
            is_last = False
            while not is_last:
                report = await _next(inbox, child, silence_s)
                is_last = isinstance(report, _LAST)
                if isinstance(report, Finished):  # memory may run out after many a load that went well
                    self._n_failures = 0
                if isinstance(report, Failed):
                    raise error_of(report)
                yield report
        finally:
            child.leave(request_id)

    async def load(self, model: str, *, silence_s: float = math.inf) -> Capabilities:
        """Of the model in this folder, loaded now if it was not."""
        if self.is_running and (known := self._known.get(model)) is not None:
            return known
        try:
            loaded = await self._answer(Load(0, model), Loaded, silence_s)
        finally:
            self._loading.pop(model, None)
        self._known[model] = loaded.capabilities
        _tell_of(model, loaded.capabilities)
        return loaded.capabilities

    async def count(self, frame: CountTokens) -> int:
        return (await self._answer(frame, Counted)).n_tokens

    async def ask(self, what: AskWhat, names: tuple[str, ...] = ()) -> dict[str, Any]:
        told = await self._answer(Ask(0, what, names), Told)
        if what == "unload":
            self._known.clear()  # what is still loaded answers at once
        return told.value

    async def prepare(self, model: str, ahead: str) -> None:
        """Ahead of the user. Nobody waits for it, so what goes wrong is only logged."""
        try:
            await self.load(model)
            async with aclosing(self.request(Prepare(0, model, ahead))) as reports:
                async for _ in reports:
                    pass
        except ApiError as error:
            log.info("the engine did not prepare %s: %s", model, error)

    async def close(self) -> None:
        """Ends the child; later requests are refused."""
        self._is_closing = True
        if self._child is not None:
            await self._child.close()

    def statistics(self) -> EngineStatistics:
        child = self._child if self.is_running else None
        ready = child.ready if child else None
        return EngineStatistics(
            is_running=child is not None,
            pid=child.pid if child else None,
            n_ends=self._n_ends,
            last_end=self._last_end,
            n_requests=child.n_running if child else 0,
            models=tuple(self._known) if child else (),
            loading=next(iter(self._loading.values()), None),
            version=ready.version if ready else None,
            mlx=ready.mlx if ready else None,
            device=ready.device if ready else None,
        )

    async def _answer(self, frame: Asked, last: type[_Last], silence_s: float = math.inf) -> _Last:
        async with aclosing(self.request(frame, silence_s=silence_s)) as reports:
            async for report in reports:
                if isinstance(report, Loading) and isinstance(frame, Load):
                    self._loading[frame.model] = report.what
                    log.debug("%s: %s", frame.model, report.what)
                if isinstance(report, last):
                    return report
        raise BackendFailed("the engine answered something else than it was asked")

    async def _ready_child(self) -> Child:
        """Several requests wait for the same one. Cancelled, it leaves the start to the next request."""
        async with self._starting:
            if self._child is None or self._child.ended is not None:
                self._child = await self._start()
            child = self._child
        await child.wait_ready()
        return child

    async def _start(self) -> Child:
        pause_s = self._ended_at + self._pause_s - asyncio.get_running_loop().time()
        if pause_s > _WAIT_S:
            problem = (
                f"the engine {self._last_end}, {self._n_failures} times in a row, and waits before it starts again"
            )
            raise Overloaded(problem, retry_after_s=pause_s)
        await anyio.sleep(max(0.0, pause_s))
        if self._is_closing:
            raise Overloaded("the engine is being stopped")
        self._known.clear()
        try:
            child = await self._started()
        except (OSError, UnsafeFolder) as error:
            raise BackendFailed(f"the engine cannot be started: {error}", retry=False) from error
        log.info("engine %d started", child.pid)
        if self._is_closing:
            await child.close()
        return child

    async def _started(self) -> Child:
        """Not to be cancelled: a process must not be lost between its start and its owner."""
        child = None
        with anyio.CancelScope(shield=True):
            child = await Child.start(replace(self._command, options=self._options), self._ended)
        assert child is not None, "a shield lets nothing through"
        return child

    @property
    def _pause_s(self) -> float:
        return min(FIRST_PAUSE_S * 2.0 ** min(self._n_failures - 1, 20), LONGEST_PAUSE_S) if self._n_failures else 0.0

    def _ended(self, child: Child) -> None:
        log.log(logging.INFO if self._is_closing else logging.ERROR, "engine %d %s", child.pid, child.ended)
        self._known.clear()
        if not self._is_closing:
            self._n_ends += 1
            self._n_failures += 1
            self._ended_at = asyncio.get_running_loop().time()
            self._last_end = child.ended


async def ask_once(command: EngineCommand, what: AskWhat, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """For a command while no server runs: an engine that is started for one answer. Raises ApiError."""
    engine = EngineProcess(command)
    try:
        return await engine.ask(what, names)
    finally:
        await engine.close()


async def _next(inbox: Inbox, child: Child, silence_s: float) -> Report:
    try:
        with anyio.fail_after(silence_s):
            return await inbox.next()
    except TimeoutError:
        if child.silence_s >= silence_s:  # to all the others neither
            child.give_up(f"said nothing for {silence_s:.0f} s")
        problem = f"the engine sent nothing for {silence_s:.0f} s (backend_silence_s)"
        raise BackendTimeout(problem, retry=False) from None


def _tell_of(model: str, capabilities: Capabilities) -> None:
    if capabilities.loses:
        log.warning("the chat template of %s leaves out: %s", model, ", ".join(capabilities.loses))
    log.info("%s: window %d, %s", model, capabilities.window, ", ".join(capabilities.classes) or "plain template")


def error_of(failed: Failed) -> ApiError:
    """A refusal of the engine's as the error that the client acts on."""
    match failed.kind:
        case "invalid":
            return InvalidRequest(failed.message)
        case "too_long" if failed.max_tokens and failed.n_prompt < failed.window:
            return PromptTooLong.by_output(failed.n_prompt, failed.max_tokens, failed.window)
        case "too_long":
            return PromptTooLong.by_prompt(failed.n_prompt, failed.window)
        case "missing":
            return Missing(failed.message)
        case "refused":
            return InvalidRequest(failed.message, retry=False)  # of any other status the client says: temporary
        case "overloaded":
            return Overloaded(failed.message)
        case "failed":
            return BackendFailed(failed.message)
