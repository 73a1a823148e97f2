"""`anyclaude trace on|off|ls|show|diff|replay|export|stats`: requests and answers in full, recorded on demand."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from anyclaude.cli.show import clock, or_dash, print_columns, print_json, say, seconds
from anyclaude.cli.traced import NOTHING, load_trace, turn_numbers
from anyclaude.config.settings import Settings
from anyclaude.errors import TraceFailed, UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.telemetry.trace_files import Limits, Summary, TraceFolder, summary_of
from anyclaude.wire.model_config import model_name

_SHOWN = 40
_MB = 1_000_000


def trace(line: CommandLine, settings: Settings, folders: Folders, environ: Mapping[str, str]) -> int:
    folder = TraceFolder(folders.traces)
    match line.command:
        case "on":
            return _on(folder, settings)
        case "off":
            return _off(folder)
        case "ls":
            return _list(line, folders, folder)
        case "show":
            from anyclaude.cli.trace_show import show

            return show(line, folders)
        case "diff":
            from anyclaude.cli.trace_diff import diff

            return diff(line, folders)
        case "replay":
            from anyclaude.cli.replay import replay

            return replay(line, settings, folders, environ)
        case "export":
            return _export(line, folders)
        case _:
            return _stats(line, folder)


def _on(folder: TraceFolder, settings: Settings) -> int:
    folder.turn_on(Limits(settings.trace_budget_mb * _MB, settings.trace_days))
    print("tracing is on: every turn of every launch is recorded from now on, but those of --private launches")
    rows = [
        ("what", "requests and answers in full, with times: your words, files that were read, tools' results"),
        ("left out", "keys and tokens, as far as they are known or look like one; ids of your account and device"),
        ("where", f"{folder.path}, for you alone to read"),
        (
            "limits",
            f"{settings.trace_budget_mb} MB and {settings.trace_days} days (trace_budget_mb, trace_days); oldest first",
        ),
        ("to stop", "anyclaude trace off"),
    ]
    for name, text in rows:
        print(f"  {name:<9} {text}")
    return 0


def _off(folder: TraceFolder) -> int:
    folder.turn_off()
    files = folder.files()
    print("tracing is off")
    if files:
        size = _size(sum(path.stat().st_size for path in files))
        print(f"{len(files)} recorded turns ({size}) stay until they are {folder.limits.days:g} days old;")
        print(f"to delete them now: rm -r {folder.path}")
    return 0


def _list(line: CommandLine, folders: Folders, folder: TraceFolder) -> int:
    found = _summaries(folder)
    numbers = turn_numbers(folders)
    rows = [_row(summary, numbers.get(summary.header.request_id)) for summary in found]
    if "--json" in line.flags:
        print_json({"traces": rows})
    elif not rows:
        print(NOTHING)
    else:
        _print_rows(rows[-_SHOWN:])
        if len(rows) > _SHOWN:
            print(f"and {len(rows) - _SHOWN} earlier ones (--json lists all)")
    return 0


def _summaries(folder: TraceFolder) -> list[Summary]:
    """Of those that can be read; the others are named."""
    found: list[Summary] = []
    for path in folder.files():
        try:
            found.append(summary_of(path))
        except TraceFailed as error:
            say(error.message)
    return found


def _row(summary: Summary, number: int | None) -> dict[str, Any]:
    header, end = summary.header, summary.end
    return {
        "request_id": header.request_id,
        "turn": number,
        "started_at": header.started_at,
        "session": header.session,
        "agent": header.agent,
        "request_class": header.request_class,
        "project": header.project,
        "backend": header.backend,
        "model": header.model,
        "duration_s": end.duration_s if end else None,
        "events": summary.n_events,
        "bytes": summary.n_bytes,
        "is_finished": end is not None,
        "stop_reason": end.stop_reason if end else None,
        "error": end.error if end else None,
    }


def _print_rows(rows: list[dict[str, Any]]) -> None:
    table = [("turn", "request", "time", "class", "model", "whole", "events", "size", "end")]
    table += [
        (
            or_dash(row["turn"]),
            row["request_id"][:12],
            clock(row["started_at"]),
            or_dash(row["request_class"]),
            model_name(row["model"]),
            seconds(row["duration_s"]),
            f"{row['events']:,}",
            _size(row["bytes"]),
            (row["error"] or or_dash(row["stop_reason"])) if row["is_finished"] else "unfinished",
        )
        for row in rows
    ]
    print_columns(table, right=frozenset({0, 5, 6, 7}))


def _export(line: CommandLine, folders: Folders) -> int:
    found = load_trace(line.operands[0] if line.operands else "last", folders)
    document = msgspec.to_builtins(found.header) | {
        "request": found.request,
        "events": found.events,
        "end": found.end,
    }
    if len(line.operands) > 1:
        _write_new(Path(line.operands[1]), msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    else:
        print_json(document)
    say("this holds the words of the prompt and of the answer: look through it before you pass it on")
    return 0


def _write_new(path: Path, data: bytes) -> None:
    """Raises UsageError where something stands there already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} exists already; name another file, or delete it first") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _stats(line: CommandLine, folder: TraceFolder) -> int:
    found = _summaries(folder)
    limits = folder.limits
    n_bytes = sum(summary.n_bytes for summary in found)
    fields: dict[str, Any] = {
        "is_on": folder.is_on,
        "folder": str(folder.path),
        "traces": len(found),
        "unfinished": sum(summary.end is None for summary in found),
        "bytes": n_bytes,
        "budget_bytes": limits.budget_bytes,
        "days": limits.days,
        "oldest_started_at": found[0].header.started_at if found else None,
    }
    if "--json" in line.flags:
        print_json(fields)
        return 0
    print(f"tracing is {'on' if fields['is_on'] else 'off'}")
    print(f"  recorded   {fields['traces']} turns, {fields['unfinished']} of them unfinished")
    print(f"  size       {_size(n_bytes)} of {_size(limits.budget_bytes)}")
    if found:
        print(f"  oldest     {clock(found[0].header.started_at)}; each is deleted after {limits.days:g} days")
    print(f"  where      {folder.path}")
    return 0


def _size(n_bytes: int) -> str:
    if n_bytes < _MB:
        return f"{n_bytes / 1000:.1f} kB"
    return f"{n_bytes / _MB:.1f} MB"
