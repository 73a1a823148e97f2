"""Going through a scheduler step by step, without any time."""

from collections.abc import Callable, Sequence

from anyclaude.engine.generation.row import Row
from anyclaude.engine.model.models import ResidentModel
from anyclaude.wire.frames import Began, Told
from tests.support.rows import Bench


def untimed() -> Bench:
    """A chunk after every step: nothing takes any time."""
    return Bench(clock=lambda: 0.0)


def alone(model: ResidentModel, ids: Sequence[int], n_out: int) -> list[int]:
    return Bench().generate(model, ids, n_out).generated


def step_until(bench: Bench, holds: Callable[[], object]) -> None:
    while not holds():
        assert not bench.scheduler.is_idle
        bench.scheduler.step()


def ahead(bench: Bench, model: ResidentModel, ids: Sequence[int]) -> Row:
    """As for `Prepare`: it only reads."""
    row = bench.row(model, ids)
    row.answer = None
    bench.scheduler.submit(row)
    return row


def began(bench: Bench) -> list[int]:
    return [report.id for report in bench.reports if isinstance(report, Began)]


def told(bench: Bench) -> list[Told]:
    return [report for report in bench.reports if isinstance(report, Told)]
