"""The engine's management routes, behind the management token: `models load`, `cache ls` and the rest ask here.

A question about what is loaded starts no engine; a command for one does.
"""

from typing import Any, Literal

import anyio
import msgspec
from msgspec import Struct
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from anyclaude.backends.engine_process import EngineProcess
from anyclaude.errors import InvalidRequest, Missing
from anyclaude.server.answers import send_json
from anyclaude.server.gateway import Gateway
from anyclaude.wire.frames import AskWhat

_SHOW_S = 3.0  # a chunk of a long prompt, or a model's weights, may keep it busy for longer
_OF_A_RUNNING_ENGINE = frozenset({"statistics", "models", "unload"})


class Command(Struct, frozen=True):
    """`names` are the command's operands: of `load` the folders of models."""

    what: AskWhat | Literal["load"]
    names: tuple[str, ...] = ()


class ManageEngine:
    """Each method is one ASGI application."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the engine itself tells is null while none runs, and while it is too busy to answer."""
        engine = self._engine
        told = models = None
        with anyio.move_on_after(_SHOW_S):
            told = await engine.ask("statistics") if engine.is_running else None
            models = await engine.ask("models") if engine.is_running else None
        await send_json(scope, send, {"process": engine.statistics(), "engine": told, "models": models})

    async def command(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            command = msgspec.json.decode(await Request(scope, receive).body(), type=Command)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(str(error)) from None
        self._gateway.touch()
        await send_json(scope, send, {"told": await self._told(command)})

    async def _told(self, command: Command) -> dict[str, Any] | None:
        engine = self._engine
        if command.what == "load":
            return {name: await engine.load(name) for name in command.names}
        if command.what in _OF_A_RUNNING_ENGINE and not engine.is_running:
            return None
        return await engine.ask(command.what, command.names)

    @property
    def _engine(self) -> EngineProcess:
        if self._gateway.engine is None:
            raise Missing("this gateway runs no engine")
        return self._gateway.engine
