"""`anyclaude doctor`: what is there, what is wrong, and what to do about it."""

import asyncio
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from anyclaude.backends.discovery import Found
from anyclaude.backends.http import Clients
from anyclaude.backends.kinds import KINDS
from anyclaude.cli.config import unknown_variables
from anyclaude.cli.doctor_engine import engine_findings, try_engine
from anyclaude.cli.finding import Finding
from anyclaude.cli.recorded import open_history
from anyclaude.cli.show import print_json
from anyclaude.cli.version import client_version
from anyclaude.config.environment import environment
from anyclaude.config.settings import Settings, read_settings
from anyclaude.errors import AnyclaudeError, ClientMissing, LedgerFailed, SettingError
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.choice import SMALL_WINDOW
from anyclaude.launch.choose import client_name, find, goes_straight, kind_of_mode
from anyclaude.launch.client_settings import default_model, find_redirects
from anyclaude.launch.engine_choice import engine_choice, names_engine
from anyclaude.launch.environment import redirects
from anyclaude.launch.local_model import hub_folder, window_of
from anyclaude.launch.model_store import LocalModel, known_models, last_used
from anyclaude.paths import Folders
from anyclaude.server.handshake import all_addresses

_TESTED_CLIENT = "2.1.330"
_LITTLE_MEMORY = 4 << 30


def doctor(line: CommandLine, folders: Folders) -> int:
    """Exit status 1 where something keeps a launch from working."""
    if "--engine" in line.flags:
        return try_engine(line, folders)
    environ = environment()
    try:
        settings = read_settings(line.options, environ, folders.settings_file)
    except SettingError as error:
        findings = [Finding("problem", "config", error.message, "correct it, then run `anyclaude doctor` again")]
    else:
        findings = list(_findings(settings, folders, environ))
    if "--json" in line.flags:
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(f"{finding.level:<8} {finding.topic}: {_indented(finding.what)}")
            if finding.do:
                print(f"{'':<8} {_indented(finding.do)}")
    return int(any(finding.level == "problem" for finding in findings))


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 9)


def _findings(settings: Settings, folders: Folders, environ: Mapping[str, str]) -> Iterator[Finding]:
    yield _client(settings, environ)
    hub, used = hub_folder(environ), last_used(folders.ledger)
    models = [model for model in known_models(hub, used) if model.chats]
    yield from asyncio.run(_backends(settings, hub, used, models, default_model(environ)))
    yield from engine_findings(settings, models)
    yield from _gateway(settings, folders)
    yield from _ledger(folders)
    yield from _overrides(environ)
    yield _memory()


def _client(settings: Settings, environ: Mapping[str, str]) -> Finding:
    try:
        version = client_version(settings, environ)
    except ClientMissing as error:
        return Finding("problem", "client", error.message)
    if version.startswith(_TESTED_CLIENT):
        return Finding("ok", "client", f"Claude Code {version}")
    do = f"tested with {_TESTED_CLIENT}; if something is odd: npm install -g @anthropic-ai/claude-code@{_TESTED_CLIENT}"
    return Finding("note", "client", f"Claude Code {version}", do)


async def _backends(
    settings: Settings, hub: Path, used: Mapping[str, float], models: Sequence[LocalModel], default: str | None
) -> list[Finding]:
    if goes_straight(settings):
        return [Finding("ok", "backend", "mode claude: Claude Code runs with nothing of ours")]
    if names_engine(settings, kind_of_mode(settings)):
        return [_engine(settings, hub, used)]
    clients = Clients()
    try:
        servers = await find(settings, clients)
    except AnyclaudeError as error:
        return [Finding("problem", "backend", error.message)]
    finally:
        await clients.close()
    if not servers and models:
        return [Finding("ok", "backend", "no model server runs on the usual ports: a launch uses the embedded engine")]
    if not servers:
        hints = "\n  ".join(kind.hint for kind in KINDS.values() if kind.ports)
        return [Finding("problem", "backend", "no model server runs on the usual ports", f"start one:\n  {hints}")]
    return [finding for server in servers for finding in _server(server, hub, default)]


def _engine(settings: Settings, hub: Path, used: Mapping[str, float]) -> Finding:
    try:
        choice = engine_choice(settings, hub, lambda: used, is_named=True)
    except AnyclaudeError as error:
        return Finding("problem", "backend", error.message)
    return Finding("ok", "backend", f"mode mlx: {choice.notes[0]}")


def _server(server: Found, hub: Path, default: str | None) -> Iterator[Finding]:
    place = f"{server.title} at {server.base_url}"
    if server.problem is not None:
        yield Finding("problem", "backend", f"{place}: {server.problem}", "wait until it is ready, or look at its log")
    elif not server.models:
        yield Finding("note", "backend", f"{place} lists no models", "load one there, or name one with --model")
    else:
        yield Finding("ok", "backend", f"{place}, {len(server.models)} model(s)")
    for model in server.models:
        if default == client_name(model.id):
            do = "choose again with /model in plain `claude`; the key s there keeps a choice to the session"
            yield Finding("note", "settings", f"plain `claude` asks for {default}, a model of yours", do)
        window = model.context_window or window_of(model.id, hub)
        if model.is_loaded and window is not None and window < SMALL_WINDOW:
            hint = KINDS[server.kind].hint
            do = f"Claude Code's prompt takes about 14,000 tokens; load it with more, for example: {hint}"
            yield Finding("note", "context", f"{model.id} reads {window:,} tokens", do)


def _gateway(settings: Settings, folders: Folders) -> Iterator[Finding]:
    addresses = all_addresses(folders.runtime)
    for address in addresses:
        yield Finding("ok", "gateway", f"{address.version} runs at {address.url}, pid {address.pid}")
    if not addresses:
        yield Finding("ok", "gateway", "not running; it starts with the next launch")
        if settings.port and not _is_free(settings.port):
            do = "choose another with --port, or leave it out for any free one"
            yield Finding("problem", "gateway", f"port {settings.port} is taken by another program", do)


def _ledger(folders: Folders) -> Iterator[Finding]:
    try:
        if (history := open_history(folders)) is not None:
            with history:
                history.turns(newest=1)
    except LedgerFailed as error:
        yield Finding("note", "ledger", error.message, "a gateway that cannot open it keeps its turns in memory only")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _overrides(environ: Mapping[str, str]) -> Iterator[Finding]:
    for redirect in find_redirects(Path.cwd(), environ):
        what = f"{redirect.file} sets {redirect.name}"
        if redirect.wins:
            do = "managed settings win over ours: ask whoever manages this machine"
            yield Finding("problem", "settings", what, do)
        else:
            yield Finding("note", "settings", what, "anyclaude sets it aside for its sessions; nothing to do")
    if names := sorted(name for name in environ if redirects(name)):
        yield Finding("note", "environment", f"{', '.join(names)} set", "not passed on in local modes; nothing to do")
    for name in unknown_variables(environ):
        yield Finding("note", "environment", f"{name} is set, but no setting has that name", "anyclaude config")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    what = f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
    if memory.available < _LITTLE_MEMORY:
        return Finding("note", "memory", what, "a model may not fit: close something, or choose a smaller one")
    return Finding("ok", "memory", what)
