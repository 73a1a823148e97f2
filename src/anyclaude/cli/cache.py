"""`anyclaude cache why|ls|pin|unpin|rm|clear|verify|path`: what the cache could keep, and what the engine does keep."""

from typing import Any

from anyclaude.cli.confirm import is_confirmed
from anyclaude.cli.engine import ask, engine_folder
from anyclaude.cli.show import clock, print_columns, print_json, say
from anyclaude.config.environment import environment
from anyclaude.config.settings import Settings, read_settings
from anyclaude.errors import EngineFailed
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.server import running
from anyclaude.paths import Folders
from anyclaude.telemetry.ledger import Ledger


def cache(line: CommandLine, folders: Folders) -> int:
    if line.command == "why":
        from anyclaude.cli.cache_why import why

        return why(line, folders)
    if line.command == "path":
        return _path(line, folders)
    settings = read_settings(line.options, environment(), folders.settings_file)
    match line.command:
        case "ls":
            return _list(line, settings, folders)
        case "pin":
            return _pin(line, settings, folders)
        case "unpin":
            return _unpin(line, settings, folders)
        case "rm":
            return _remove(line, settings, folders)
        case "clear":
            return _clear(line, settings, folders)
        case _:
            return _verify(line, settings, folders)


def _path(line: CommandLine, folders: Folders) -> int:
    folder = engine_folder(folders)
    print_json({"folder": str(folder)}) if "--json" in line.flags else print(folder)
    return 0


def _list(line: CommandLine, settings: Settings, folders: Folders) -> int:
    told = ask("cache.ls", (), settings, folders)
    entries: list[dict[str, Any]] = told["entries"]
    if "--json" in line.flags:
        print_json(told)
    elif entries:
        _print_entries(entries)
    else:
        print("the engine keeps no state of any prompt")
    return 0


def _print_entries(entries: list[dict[str, Any]]) -> None:
    """What a line shares with one above it is counted there."""
    table = [("digest", "model", "tokens", "own", "memory", "disk", "class", "used", "")]
    table += [
        (
            entry["digest"],
            entry["model"] or "-",
            f"{entry['n_tokens']:,}",
            f"{entry['own_tokens']:,}",
            _megabytes(entry["held_bytes"]),
            _megabytes(entry["stored_bytes"]),
            entry["request_class"],
            clock(entry["used_at"]) if entry["used_at"] else "-",
            "pinned" if entry["is_pinned"] else "",
        )
        for entry in entries
    ]
    print_columns(table, right=frozenset({2, 3, 4, 5}))


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes else "-"


def _pin(line: CommandLine, settings: Settings, folders: Folders) -> int:
    (digest,) = line.operands
    told = ask("cache.pin", line.operands, settings, folders)
    if not told["pinned"]:
        raise EngineFailed(_no_such(digest))
    print_json(told) if "--json" in line.flags else print(f"{digest} and what it begins with stay")
    return 0


def _unpin(line: CommandLine, settings: Settings, folders: Folders) -> int:
    (digest,) = line.operands
    told = ask("cache.unpin", line.operands, settings, folders)
    if not told["unpinned"]:
        raise EngineFailed(_no_such(digest, "pinned state"))
    print_json(told) if "--json" in line.flags else print(f"{digest} is kept like any other")
    return 0


def _remove(line: CommandLine, settings: Settings, folders: Folders) -> int:
    (digest,) = line.operands
    told = ask("cache.rm", line.operands, settings, folders)
    if not told["removed"]:
        raise EngineFailed(_no_such(digest))
    print_json(told) if "--json" in line.flags else print(f"deleted {told['removed']} blocks")
    return 0


def _no_such(digest: str, what: str = "state") -> str:
    return f"no {what} has a digest that begins with {digest!r}, or more than one does; `anyclaude cache ls` lists them"


def _clear(line: CommandLine, settings: Settings, folders: Folders) -> int:
    """The engine's state and the turns that it would replay, and the ledger's turns."""
    question = f"delete all state of prompts in {engine_folder(folders)}, and the turns of the ledger?"
    if not is_confirmed(line, question):
        say("nothing was deleted")
        return 1
    told = ask("cache.clear", (), settings, folders)
    _forget_turns(folders)
    if "--json" in line.flags:
        print_json(told)
        return 0
    print(f"deleted {told['removed']} blocks, the turns that would be replayed, and the ledger's turns")
    print("traces and logs stay where they are (`anyclaude trace stats`, `anyclaude config`)")
    return 0


def _forget_turns(folders: Folders) -> None:
    """By the running gateway, which remembers what it wrote; else in the file."""
    client = running(folders)
    if client is not None:
        client.post("/anyclaude/forget")
    elif folders.ledger.exists():
        ledger = Ledger(folders.ledger)
        ledger.forget(0.0)
        ledger.close()


def _verify(line: CommandLine, settings: Settings, folders: Folders) -> int:
    """Status 1 where something is damaged, which was set aside and is computed afresh when it is needed; or where an
    answer differs."""
    told = ask("cache.verify", (), settings, folders)
    parities: list[dict[str, Any]] = told["parity"]
    if "--json" in line.flags:
        print_json(told)
    else:
        for name, value in told.items():
            if name != "parity":
                print(f"{name.replace('_', ' '):<20} {value}")
        print("\n".join(map(_parity, parities)) or "no model is loaded: files only")
    return int(bool(told.get("damaged") or told["faults"]) or not all(parity["holds"] for parity in parities))


def _parity(parity: dict[str, Any]) -> str:
    name, n = parity["model"], parity["tokens"]
    if not n:
        return f"{name}: nothing is kept of it"
    verdict = "the same with and without" if parity["holds"] else "NOT the same with and without"
    share, tolerance = parity["largest_share"], parity["tolerance"]
    token = "equal" if parity["equal_tokens"] else "another"
    return f"{name}: {verdict}, {n} tokens, {share:.1e} apart ({tolerance:g} is allowed), next token {token}"
