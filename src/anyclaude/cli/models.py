"""`anyclaude models`: what the chosen server has, or every server that runs here and the models on this machine."""

import asyncio
from collections.abc import Mapping
from typing import Any

from anyclaude.backends.discovery import Found
from anyclaude.backends.http import Clients
from anyclaude.cli.engine import loaded_models
from anyclaude.cli.local_models import list_local, load, local_row, recommend, remove, unload
from anyclaude.cli.show import or_dash, print_columns, print_json
from anyclaude.config.settings import Settings
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.choose import find, kind_of_mode
from anyclaude.launch.engine_choice import ENGINE_URL, names_engine
from anyclaude.launch.local_model import hub_folder, window_of
from anyclaude.launch.model_store import known_models, last_used
from anyclaude.paths import Folders


def models(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    match line.command:
        case "pull":
            from anyclaude.cli.pull import pull_model

            return pull_model(line, environ)
        case "ls":
            return list_local(line, folders, environ)
        case "rm":
            return remove(line, folders, environ)
        case "load":
            return load(line, folders, environ)
        case "unload":
            return unload(line, folders, environ)
        case "recommend":
            return recommend(line, settings)
        case _:
            return list_all(line, settings, folders, environ)


def list_all(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    is_engine = names_engine(settings, kind_of_mode(settings))
    is_any = settings.mode is None and settings.base_url is None
    servers = [] if is_engine else asyncio.run(_servers(settings))
    rows = [row for server in servers for row in _rows(server, environ)]
    if is_engine or is_any:
        rows += _local_rows(folders, environ)
    if "--json" in line.flags:
        print_json({"models": rows})
        return 0
    for server in servers:
        if not server.models:
            own = " (it answers with the one that it has loaded)" if server.kind == "mlx-lm" else ""
            print(f"{server.title} at {server.base_url} lists no models{own}")
    if is_any and not servers:
        print("no model server runs on the usual ports; `anyclaude doctor` tells more")
    if rows:
        _print_rows(rows)
    elif is_engine or is_any:
        print("no model for the engine is on this machine; `anyclaude models recommend` names one that suits it")
    return 0


def _rows(server: Found, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    hub = hub_folder(environ)
    return [
        {
            "model": model.id,
            "server": server.kind,
            "base_url": server.base_url,
            "context_window": model.context_window or window_of(model.id, hub),
            "is_loaded": model.is_loaded,
        }
        for model in server.models
    ]


def _local_rows(folders: Folders, environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those that can answer a prompt, as `--model` takes them."""
    used, loaded = last_used(folders.ledger), loaded_models(folders)
    found = [local_row(model, used, loaded) for model in known_models(hub_folder(environ), used) if model.chats]
    return [
        {
            "model": f"mlx/{row['model']}",
            "server": "mlx",
            "base_url": ENGINE_URL,
            "context_window": row["context_window"],
            "is_loaded": row["is_loaded"],
        }
        for row in found
    ]


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = [("model", "context", "loaded", "server")]
    table += [
        (
            str(row["model"]),
            or_dash(row["context_window"]),
            "yes" if row["is_loaded"] else "",
            "the embedded engine" if row["server"] == "mlx" else f"{row['server']} at {row['base_url']}",
        )
        for row in rows
    ]
    print_columns(table, right=frozenset({1}))


async def _servers(settings: Settings) -> list[Found]:
    clients = Clients()
    try:
        return await find(settings, clients)
    finally:
        await clients.close()
