"""`anyclaude status` and `anyclaude stop`."""

from collections.abc import Mapping, Sequence
from typing import Any

from anyclaude.cli.show import or_dash, print_columns, print_json, seconds
from anyclaude.errors import ServerNotReached, UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.server import ServerClient, wait_for_end
from anyclaude.launch.server import stop as stop_server
from anyclaude.paths import Folders
from anyclaude.server.handshake import all_addresses
from anyclaude.telemetry.trace_files import TraceFolder
from anyclaude.wire.model_config import model_name

_SHOWN = 10


def status(line: CommandLine, folders: Folders) -> int:
    answers = [_read(ServerClient(address)) for address in all_addresses(folders.runtime)]
    servers = [answer for answer in answers if answer is not None]
    is_tracing = TraceFolder(folders.traces).is_on
    if "--json" in line.flags:
        print_json({"servers": servers, "is_tracing": is_tracing})
        return 0
    if is_tracing:
        print("tracing is on: turns are recorded with all their words (anyclaude trace off)")
    if not servers:
        print("no gateway is running (it starts with the next launch)")
    for server in servers:
        _print_server(server)
    return 0


def _read(client: ServerClient) -> dict[str, Any] | None:
    """None for a server that was just stopping."""
    try:
        found = client.get("/anyclaude/statistics") | client.get("/anyclaude/turns")
    except ServerNotReached:
        if wait_for_end(client):
            return None
        raise
    return {"url": client.address.url, "pid": client.address.pid, **found}


def _print_server(server: Mapping[str, Any]) -> None:
    facts = server["server"]
    draining = ", stops after its last session" if facts["is_draining"] else ""
    print(f"gateway {facts['version']} at {server['url']}, pid {server['pid']}, up {_age(facts['uptime_s'])}{draining}")
    if facts.get("unwritten"):
        print(f"  {facts['unwritten']} records of turns or traces could not be written; `anyclaude logs` says why")
    for session in server["sessions"]:
        is_engine = session["backend"] == "mlx"
        backend = "the embedded engine" if is_engine else f"{session['backend']} at {session['base_url']}"
        model = model_name(session["model"]) if is_engine else session["model"]
        print(f"  session {session['id']}  {model or 'any model'} on {backend}")
        print(f"          pid {session['pid']} in {session['project']}")
    if (engine := facts.get("engine")) is not None:
        _print_engine(engine)
    for turn in facts["running"]:
        print(f"  now     {_doing(turn)}, {turn['duration_s']:.0f} s (session {turn['session']})")
    if server["turns"]:
        print()
        print_turns(server["turns"][-_SHOWN:])


def _print_engine(engine: Mapping[str, Any]) -> None:
    """Nothing of an engine that was never needed."""
    if engine["is_running"]:
        loaded = ", ".join(model_name(model) for model in engine["models"]) or "no model"
        loading = f", loads {engine['loading']}" if engine["loading"] else ""
        print(f"  engine  pid {engine['pid']}, {loaded}{loading}")
    if engine["n_ends"]:
        times = "once" if engine["n_ends"] == 1 else f"{engine['n_ends']} times"
        print(f"  engine  died {times}; the last one {engine['last_end']}")


def _doing(turn: Mapping[str, Any]) -> str:
    model = model_name(turn["model"])
    if turn["is_answering"]:
        return f"{model} is answering"
    if turn["n_total"] is None:
        return f"waiting for {model}"
    return f"{model} reads the prompt: {turn['n_read']:,} of {turn['n_total']:,} tokens"


def print_turns(turns: Sequence[Mapping[str, Any]]) -> None:
    """A dash is a figure that the backend did not tell."""
    rows = [("turn", "class", "model", "prompt", "cached", "out", "first", "whole", "end")]
    rows += [
        (
            or_dash(turn["id"]),  # None of a turn that is on no disk: private, or not written yet
            or_dash(turn["request_class"]),
            model_name(turn["model"]),
            or_dash(turn["tokens_prompt"]),
            or_dash(turn["tokens_cached"]),
            or_dash(turn["tokens_out"]),
            seconds(turn["ttft_s"]),
            seconds(turn["duration_s"]),
            turn["error"] or or_dash(turn["stop_reason"]),
        )
        for turn in turns
    ]
    print_columns(rows, right=frozenset({3, 4, 5, 6, 7}))


def _age(age_s: float) -> str:
    minutes = int(age_s) // 60
    if minutes < 60:
        return f"{minutes} min" if minutes else f"{int(age_s)} s"
    return f"{minutes // 60} h {minutes % 60} min"


def stop(line: CommandLine, folders: Folders) -> int:
    stopped: list[int] = []
    for address in all_addresses(folders.runtime):
        client = ServerClient(address)
        running = client.get("/anyclaude/statistics")["sessions"]
        if running and "--force" not in line.flags:
            where = ", ".join(f"pid {session['pid']} in {session['project']}" for session in running)
            raise UsageError(f"Claude Code still runs on this gateway ({where}). Close it, or: anyclaude stop --force")
        stop_server(client)
        stopped.append(address.pid)
    if "--json" in line.flags:
        print_json({"stopped": stopped})
    elif stopped:
        print("stopped")
    else:
        print("no gateway is running")
    return 0
