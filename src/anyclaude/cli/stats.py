"""`anyclaude stats`: turns, tokens, hit rate and time saved, of today unless something else is named."""

import datetime
import time
from pathlib import Path

from anyclaude.cli.recorded import NOTHING, open_history
from anyclaude.cli.show import (
    clock,
    counted,
    length_of_time,
    or_dash,
    percent,
    print_columns,
    print_json,
    print_json_line,
    seconds,
)
from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.paths import Folders
from anyclaude.telemetry.history import Filter
from anyclaude.telemetry.summary import Summary, Sums, summarize
from anyclaude.telemetry.turns import TurnRow
from anyclaude.wire.model_config import model_name

_BASIS = 2000  # newest turns that the speed of reading is taken from
_SHOWN = 10


def stats(line: CommandLine, folders: Folders) -> int:
    chosen, period = _filter(line)
    history = open_history(folders)
    if history is None:
        rows, basis = list[TurnRow](), list[TurnRow]()
    else:
        with history:
            rows, basis = history.turns(chosen), history.turns(newest=_BASIS)
    elsewhere = "; --all shows those of other days" if period.startswith("today") else ""
    nothing = f"{period}: no turns{elsewhere}" if basis else NOTHING
    if "--turns" in line.flags:
        _print_turns(rows, nothing, as_json="--json" in line.flags)
    elif "--json" in line.flags:
        print_json({"period": period, "summary": summarize(rows, basis)})
    elif not rows:
        print(nothing)
    else:
        _print_summary(summarize(rows, basis), period)
    return 0


def _filter(line: CommandLine) -> tuple[Filter, str]:
    since, period = _since(line)
    session, model = line.values.get("--session"), line.options.get("model")
    project = line.values.get("--project")
    folder = str(Path(project).expanduser().resolve()) if project else None
    named = [f"session {session}" if session else "", f"model {model}" if model else "", folder or ""]
    return (
        Filter(since=since, session=session, project=folder, model=model),
        ", ".join(part for part in (period, *named) if part),
    )


def _since(line: CommandLine) -> tuple[float | None, str]:
    """Today, unless the person says otherwise: a session is shown whole."""
    if (days := line.values.get("--days")) is not None:
        if not (days.isascii() and days.isdecimal()) or not int(days):
            raise UsageError(f"--days {days}: a whole number of days is needed, 1 or more")
        if "--all" in line.flags:
            raise UsageError("--days and --all exclude each other")
        return time.time() - int(days) * 86400, f"the last {counted(int(days), 'day')}"
    if "--all" in line.flags or "--session" in line.values:
        return None, "all recorded turns"
    now = datetime.datetime.now()
    return datetime.datetime(now.year, now.month, now.day).timestamp(), "today"  # clocks may have changed since


def _print_turns(rows: list[TurnRow], nothing: str, *, as_json: bool) -> None:
    """As JSON one object a line."""
    if as_json:
        for row in rows:
            print_json_line(row)
        return
    if not rows:
        print(nothing)
        return
    table = [("turn", "started", "class", "model", "prompt", "cached", "read", "out", "first", "whole", "end")]
    table += [
        (
            str(row.id), clock(row.started_at), or_dash(row.request_class), model_name(row.model),
            or_dash(row.tokens_prompt), or_dash(row.tokens_cached), or_dash(row.tokens_prefilled),
            or_dash(row.tokens_out), seconds(row.ttft_s), seconds(row.duration_s), _end(row),
        )
        for row in rows
    ]  # fmt: skip
    print_columns(table, right=frozenset({0, 4, 5, 6, 7, 8, 9}))


def _end(row: TurnRow) -> str:
    return row.error or or_dash(row.stop_reason)


def _print_summary(summary: Summary, period: str) -> None:
    total = summary.total
    ends = [f"{total.failed} of them failed"] if total.failed else []
    ends += [f"{total.cancelled} cancelled by the client"] if total.cancelled else []
    print(", ".join([f"{period}: {counted(total.turns, 'turn')}", *ends]))
    print(f"  prompt tokens  {total.tokens_prompt:,}, as the servers counted them")
    if total.tokens_cached is None:
        print("  cached         not told by the server")
    else:
        print(f"  cached         {total.tokens_cached:,} ({percent(total.hit_rate)} of prompts whose server tells)")
    print(f"  written        {total.tokens_out:,} tokens")
    print(f"  first piece    {seconds(total.median_ttft_s)} (median)")
    if total.seconds_saved is not None:
        print(f"  time saved     {length_of_time(total.seconds_saved)} = {summary.formula}")
        for rate in summary.rates:
            print(f"                 {rate.model}: {rate.seconds_a_token * 1000:.2f} ms a token, measured over "
                  f"{rate.tokens_read:,} tokens in {counted(rate.n_turns, 'turn')}")  # fmt: skip
    for heading, sums in (
        ("model", summary.by_model),
        ("project", summary.by_project),
        ("session", summary.by_session),
    ):
        if len(sums) > 1:
            _print_sums(heading, sums)
    print("\nslowest")
    for row in summary.slowest:
        print(f"  turn {row.id}  {seconds(row.duration_s)}, first piece after {seconds(row.ttft_s)}, "
              f"read {or_dash(row.tokens_prefilled)} of {or_dash(row.tokens_prompt)} tokens")  # fmt: skip
    print("`anyclaude cache why TURN` tells why a turn read what it read")


def _print_sums(heading: str, sums: tuple[Sums, ...]) -> None:
    print()
    table = [(heading, "turns", "prompt", "cached", "hit rate", "out", "first", "saved")]
    table += [
        (
            each.name, str(each.turns), str(each.tokens_prompt), or_dash(each.tokens_cached), percent(each.hit_rate),
            str(each.tokens_out), seconds(each.median_ttft_s),
            "-" if each.seconds_saved is None else length_of_time(each.seconds_saved),
        )
        for each in sums[:_SHOWN]
    ]  # fmt: skip
    print_columns(table, right=frozenset(range(1, 8)))
    if len(sums) > _SHOWN:
        print(f"and {len(sums) - _SHOWN} more")
