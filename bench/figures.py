"""The measured figures as one table, and beside the targets that the design names. Nothing here is asserted."""

from msgspec import Struct

ADDED_TARGET_MS, FASTER_TARGET, MEMORY_TARGET_MB = 3.0, 20.0, 80.0


class Figures(Struct, frozen=True):
    """One row of the table: medians, with the least and the most where rounds can differ much."""

    server: str
    version: str
    first_text_ms: float
    first_text_p90_ms: float
    added_ms: float
    burst_events_per_s: float
    burst_cpu_ms_per_event: float
    paced_cpu_ms_per_event: float
    requests_per_s: float
    requests_per_s_range: tuple[float, float]
    memory_mb: float


def print_table(rows: list[Figures]) -> None:
    heads = ("", "first text", "p90", "added", "burst", "CPU/event", "CPU/event", "requests/s", "memory")
    units = ("", "ms", "ms", "ms", "events/s", "burst ms", "paced ms", "(range)", "MB")
    lines = [heads, units, *(_cells(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(heads))]
    for name, *cells in lines:
        print(
            name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)), sep="  "
        )


def _cells(row: Figures) -> tuple[str, ...]:
    least, most = row.requests_per_s_range
    return (
        f"{row.server} {row.version}".strip(),
        f"{row.first_text_ms:.2f}",
        f"{row.first_text_p90_ms:.2f}",
        f"{row.added_ms:.2f}",
        f"{row.burst_events_per_s:,.0f}",
        f"{row.burst_cpu_ms_per_event:.4f}",
        f"{row.paced_cpu_ms_per_event:.4f}",
        f"{row.requests_per_s:.1f} ({least:.1f}-{most:.1f})",
        f"{row.memory_mb:.0f}",
    )


def targets(rows: list[Figures]) -> dict[str, float]:
    """The figures that the design promises, and the same beside LiteLLM."""
    by_name = {row.server: row for row in rows}
    ours, other = by_name["anyclaude"], by_name.get("litellm")
    found = {"added_ms": ours.added_ms, "memory_mb": ours.memory_mb}
    if other is not None:
        found["times_requests_per_s"] = ours.requests_per_s / other.requests_per_s
        found["times_less_cpu_paced"] = other.paced_cpu_ms_per_event / ours.paced_cpu_ms_per_event
        found["times_less_added"] = other.added_ms / ours.added_ms
        found["times_less_memory"] = other.memory_mb / ours.memory_mb
    return found


def print_targets(found: dict[str, float]) -> None:
    print(f"\nadded before the first text  {found['added_ms']:6.2f} ms   target <= {ADDED_TARGET_MS:g}")
    print(f"memory                       {found['memory_mb']:6.1f} MB   target <= {MEMORY_TARGET_MB:g}")
    if "times_requests_per_s" in found:
        print(f"requests/s, times LiteLLM's  {found['times_requests_per_s']:6.1f}      target >= {FASTER_TARGET:g}")
        print(
            f"and: {found['times_less_added']:.1f} times less delay, {found['times_less_cpu_paced']:.1f} times less"
            f" CPU per event (paced), {found['times_less_memory']:.1f} times less memory"
        )
