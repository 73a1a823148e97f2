"""One launch: choose, register, lay the overlay, and know exactly what is to be run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from anyclaude.config.settings import Settings
from anyclaude.launch.arguments import CLIENT_SESSION_WORDS
from anyclaude.launch.choice import Choice
from anyclaude.launch.client_settings import find_redirects
from anyclaude.launch.environment import client_environment, no_proxy
from anyclaude.launch.overlay import Door, merged, overlay, take_settings, with_redirects_blank
from anyclaude.launch.server import register
from anyclaude.paths import Folders
from anyclaude.server.overlays import delete_dead_overlays, write_overlay_file
from anyclaude.server.process import process_start
from anyclaude.server.sessions import NewSession

_BACKGROUND = frozenset({"--bg", "--background"})


class Plan(Struct, frozen=True):
    """What will be run: `arguments` for the client, its environment, and the overlay's fields."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    overlay: dict[str, Any]
    warnings: tuple[str, ...] = ()


def open_door(
    settings: Settings, choice: Choice, folders: Folders, environ: Mapping[str, str], *, lingers: bool
) -> Door:
    """Registers this process, which becomes the client, with the server; starts the server if none runs."""
    pid = os.getpid()
    new = NewSession(
        pid=pid,
        pid_started=process_start(pid),
        project=str(Path.cwd()),
        target=choice.target,
        log_level=settings.debug,
        lingers=lingers,
        is_private=settings.private,
    )
    registered = register(new, folders, port=settings.port, idle_stop_s=settings.idle_stop_s, environ=environ)
    return Door(registered.url, registered.token)


def lingers(arguments: tuple[str, ...]) -> bool:
    """Whether the client goes on in a process of its own after this one has ended."""
    return not _BACKGROUND.isdisjoint(arguments) or arguments[:1] == ("agents",)


def plan(door: Door, choice: Choice, arguments: tuple[str, ...], environ: Mapping[str, str]) -> Plan:
    theirs, rest = take_settings(arguments)
    redirects = find_redirects(Path.cwd(), environ)
    ours = overlay(door, choice, no_proxy=no_proxy(environ))
    fields = with_redirects_blank(merged(theirs, ours), [redirect.name for redirect in redirects])
    warnings = tuple(
        f"{redirect.file} sets {redirect.name}; "
        + ("it is managed and wins over anyclaude" if redirect.wins else "not used in this session")
        for redirect in redirects
    )
    return Plan(rest, client_environment(environ), fields, warnings)


def write_overlay(plan: Plan, folders: Folders) -> Path:
    delete_dead_overlays(folders.overlays)
    data = msgspec.json.encode(plan.overlay)
    return write_overlay_file(folders.overlays, data, pid=os.getpid(), lingers=lingers(plan.arguments))


def with_overlay(arguments: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """`--settings` goes first, or right after a word of the client's that takes it."""
    at = 1 if arguments and arguments[0] in CLIENT_SESSION_WORDS else 0
    return (*arguments[:at], "--settings", str(path), *arguments[at:])
