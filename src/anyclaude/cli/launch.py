"""`anyclaude …`: from the settings to Claude Code, or to a description of what would run."""

import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping

import msgspec

from anyclaude.cli.show import say
from anyclaude.config.settings import Settings
from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CLIENT_SESSION_WORDS, CLIENT_WORDS, CommandLine
from anyclaude.launch.choose import choose, goes_straight
from anyclaude.launch.client import become, find_client
from anyclaude.launch.environment import quiet_environment
from anyclaude.launch.local_model import hub_folder
from anyclaude.launch.model_store import last_used
from anyclaude.launch.overlay import Door
from anyclaude.launch.session import Plan, lingers, open_door, plan, with_overlay, write_overlay
from anyclaude.paths import Folders

_HIDDEN = Door("http://127.0.0.1:PORT", "(a token made at launch)")


def launch(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    """Does not return when the client starts."""
    if "host" in line.options:
        raise UsageError("--host is for `anyclaude serve`; a launch listens on 127.0.0.1 only")
    arguments = line.client
    if goes_straight(settings):
        return _launch_straight(line, settings, environ)
    if needs_no_gateway(arguments):
        return _launch_straight(line, settings, quiet_environment(environ))
    runs_nothing = bool(line.flags & {"--no-launch", "--dry-run"})
    client = None if runs_nothing else find_client(settings.client, environ.get("PATH"))
    choice = asyncio.run(choose(settings, hub_folder(environ), say, lambda: last_used(folders.ledger)))
    say(*choice.notes)
    if "--dry-run" in line.flags:
        prepared = plan(_HIDDEN, choice, arguments, environ)
        say(*prepared.warnings)
        _print_plan(prepared, environ)
        return 0
    door = open_door(settings, choice, folders, environ, lingers=lingers(arguments))
    prepared = plan(door, choice, arguments, environ)
    say(*prepared.warnings)
    if client is None:
        return _wait(prepared)
    path = write_overlay(prepared, folders)
    become(client, with_overlay(prepared.arguments, path), prepared.environment)
    raise AssertionError("exec does not return")


def needs_no_gateway(arguments: tuple[str, ...]) -> bool:
    """A word of the client's own that runs no model."""
    return bool(arguments) and arguments[0] in CLIENT_WORDS - CLIENT_SESSION_WORDS


def _launch_straight(line: CommandLine, settings: Settings, environ: Mapping[str, str]) -> int:
    chosen = ("--model", settings.model) if "model" in line.options and settings.model else ()
    arguments = (*chosen, *line.client)
    if "--dry-run" in line.flags:
        print(shlex.join(["claude", *arguments]))
        return 0
    become(find_client(settings.client, environ.get("PATH")), arguments, environ)
    raise AssertionError("exec does not return")


def _print_plan(prepared: Plan, environ: Mapping[str, str]) -> None:
    removed = sorted(name for name in environ if name not in prepared.environment)
    print(shlex.join(["claude", "--settings", "OVERLAY", *prepared.arguments]))
    print(f"\nvariables taken out of its environment: {', '.join(removed) or 'none'}")
    print("\nOVERLAY, a private file of this session:")
    print(msgspec.json.format(msgspec.json.encode(prepared.overlay), indent=2).decode())


def _wait(prepared: Plan) -> int:
    """The settings as shell commands, and then the session for as long as this process lives."""
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # one that is not blocked kills before it can be waited for
    for name, value in prepared.overlay["env"].items():
        print(f"export {name}={shlex.quote(value)}")
    sys.stdout.flush()
    say("the gateway serves these settings until this command ends (Ctrl-C)")
    signal.sigwait(ends)
    return 0
