"""`anyclaude models`: what the chosen server has, or every server that runs here."""

import asyncio
from collections.abc import Mapping
from typing import Any

from anyclaude.backends.discovery import Found
from anyclaude.backends.http import Clients
from anyclaude.cli.show import or_dash, print_columns, print_json
from anyclaude.config.settings import Settings
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.choose import find, search
from anyclaude.launch.local_model import hub_folder, window_of


def models(line: CommandLine, settings: Settings, environ: Mapping[str, str]) -> int:
    servers = asyncio.run(_servers(settings))
    hub = hub_folder(environ)
    rows = [
        {
            "model": model.id,
            "server": server.kind,
            "base_url": server.base_url,
            "context_window": model.context_window or window_of(model.id, hub),
            "is_loaded": model.is_loaded,
        }
        for server in servers
        for model in server.models
    ]
    if "--json" in line.flags:
        print_json({"models": rows})
        return 0
    for server in servers:
        if not server.models:
            own = " (it answers with the one that it has loaded)" if server.kind == "mlx-lm" else ""
            print(f"{server.title} at {server.base_url} lists no models{own}")
    if not servers:
        print("no model server runs on the usual ports; `anyclaude doctor` tells more")
    if rows:
        _print_rows(rows)
    return 0


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = [("model", "context", "loaded", "server")]
    table += [
        (
            str(row["model"]),
            or_dash(row["context_window"]),
            "yes" if row["is_loaded"] else "",
            f"{row['server']} at {row['base_url']}",
        )
        for row in rows
    ]
    print_columns(table, right=frozenset({1}))


async def _servers(settings: Settings) -> list[Found]:
    clients = Clients()
    try:
        if settings.mode is None and settings.base_url is None:
            return await search(clients)
        found, _ = await find(settings, clients)
        return [found]
    finally:
        await clients.close()
