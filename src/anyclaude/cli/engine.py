"""Commands to the engine: by the running gateway, whose engine it is, or by an engine started for one answer."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio

from anyclaude.backends.engine_child import EngineCommand
from anyclaude.backends.engine_process import ask_once
from anyclaude.cli.show import say
from anyclaude.config.settings import Settings
from anyclaude.errors import EngineFailed, Overloaded, ServerNotReached
from anyclaude.launch.engine_choice import engine_options
from anyclaude.launch.server import ServerClient, running
from anyclaude.paths import Folders
from anyclaude.wire.frames import AskWhat


def ask(what: AskWhat, names: Sequence[str], settings: Settings, folders: Folders) -> dict[str, Any]:
    """Raises EngineFailed, ServerNotReached or ApiError with what the engine said."""
    client = running(folders)
    told = client.engine(what, names) if client is not None else None
    told = ask_own(what, names, settings, folders) if told is None else told
    if "problem" in told:
        raise EngineFailed(told["problem"])
    return told


def ask_own(what: AskWhat, names: Sequence[str], settings: Settings, folders: Folders) -> dict[str, Any]:
    """Of an engine that is started for this, which takes some seconds. Raises EngineFailed."""
    say("starting an engine for this command")
    command = own_engine(folders, engine_options(settings))
    try:
        return anyio.run(ask_once, command, what, tuple(names))
    except Overloaded:  # "will be tried again" is for clients
        raise EngineFailed(f"the engine ended; see {command.errors_file} and {command.log_file}") from None


def own_engine(folders: Folders, options: Mapping[str, int]) -> EngineCommand:
    """One that is this command's own, on the same folder as the gateway's. What is logged of it is for the gateway's
    log, not for the terminal."""
    logging.getLogger("anyclaude").addHandler(logging.NullHandler())
    return EngineCommand(cache=engine_folder(folders), log_file=folders.state / "engine.log", options=dict(options))


def engine_folder(folders: Folders) -> Path:
    """Where the engine keeps what survives it."""
    return folders.cache / "engine"


def loaded_models(folders: Folders) -> frozenset[str]:
    """The folders of those that the running gateway's engine has in memory."""
    client = running(folders)
    return _loaded(client) if client is not None else frozenset()


def _loaded(client: ServerClient) -> frozenset[str]:
    """A gateway that does not answer has, as far as anybody can tell, none."""
    try:
        told: dict[str, Any] = client.get("/anyclaude/engine").get("models") or {}
    except ServerNotReached:
        return frozenset()
    models: list[dict[str, Any]] = told.get("models", [])
    return frozenset(str(model["folder"]) for model in models)
