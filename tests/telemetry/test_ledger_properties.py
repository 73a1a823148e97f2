"""Any prompts, in any order, over restarts and beside another process: the ledger against the plain computation."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from anyclaude.telemetry import branches
from anyclaude.telemetry.history import History
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.turns import TurnRow
from tests.telemetry.rows import lazily, sections, turn_row


class Step(Struct, frozen=True):
    """One turn: its prompt is the first `n_kept` texts of the turn `after`, and then `new`."""

    after: int
    n_kept: int
    new: list[str]
    labels: dict[str, Any]
    writer: int
    restarts: bool


LABELS = st.fixed_dictionaries(
    {
        "session": st.sampled_from("st"),
        "agent": st.sampled_from([None, None, "helper"]),
        "project": st.sampled_from(["/p", "/p", "/q"]),
        "model": st.sampled_from("mmmn"),
        "error": st.sampled_from([None, None, None, "api_error"]),
        "ttft_s": st.sampled_from([0.5, 0.5, None]),
    }
)
STEPS = st.lists(
    st.builds(
        Step,
        after=st.integers(0, 30),
        n_kept=st.integers(0, 8),
        new=st.lists(st.sampled_from("abc"), max_size=3),
        labels=LABELS,
        writer=st.integers(0, 1),
        restarts=st.sampled_from([False, False, False, True]),
    ),
    max_size=30,
)


def prompts_of(steps: list[Step]) -> list[list[str]]:
    prompts: list[list[str]] = []
    for step in steps:
        kept = prompts[step.after % len(prompts)][: step.n_kept] if prompts else []
        prompts.append([*kept, *step.new])
    return prompts


def n_shared(one: list[str], other: list[str]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def best_earlier(rows: list[TurnRow], prompts: list[list[str]], n: int) -> tuple[int | None, int]:
    """By comparing with every earlier turn: the session's first, then the project's; the newest of equals."""

    def own(row: TurnRow) -> object:
        return row.session, row.agent

    def project(row: TurnRow) -> object:
        return row.project

    for whose in (own, project):
        found = [
            (n_shared(prompts[k], prompts[n]), k + 1)
            for k in range(n)
            if whose(rows[k]) == whose(rows[n]) and rows[k].server == rows[n].server and rows[k].was_read
        ]
        if max(found, default=(0, 0))[0]:
            return max(found)[1], max(found)[0]
    return None, 0


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_sections_read_back_and_the_best_earlier_turn_is_the_computed_one(steps: list[Step]) -> None:
    prompts = prompts_of(steps)
    given_rows = [turn_row(f"req_{n}", **step.labels) for n, step in enumerate(steps)]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as changed:
        changed.setattr(branches, "PER_SESSION", 1000)
        changed.setattr(branches, "PER_PROJECT", 1000)
        path = Path(folder) / "ledger.sqlite3"
        ledgers = [Ledger(path), Ledger(path)]
        for step, prompt, row in zip(steps, prompts, given_rows, strict=True):
            if step.restarts:
                ledgers[step.writer].close()
                ledgers[step.writer] = Ledger(path)
            ledgers[step.writer].add(row, lazily(*prompt))
            ledgers[step.writer].flush()
        for ledger in ledgers:
            ledger.close()
        with History(path) as history:
            found = history.turns()
            kept = [history.sections(n + 1) for n in range(len(steps))]

    assert kept == [list(sections(*prompt)) for prompt in prompts]
    assert [(row.compared_with, row.n_shared) for row in found] == [
        best_earlier(given_rows, prompts, n) for n in range(len(steps))
    ]
    assert [row.n_sections for row in found] == [len(prompt) for prompt in prompts]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("ab"), max_size=6), max_size=8))
def test_as_many_prompts_as_are_kept_are_compared_exactly(prompts: list[list[str]]) -> None:
    ledger = Ledger(None)
    rows = [turn_row(f"req_{n}") for n in range(len(prompts))]
    for row, prompt in zip(rows, prompts, strict=True):
        ledger.add(row, lazily(*prompt))
    ledger.flush()
    ledger.close()

    assert len(prompts) <= branches.PER_SESSION
    assert [(row.compared_with, row.n_shared) for row in ledger.recent] == [
        best_earlier(rows, prompts, n) for n in range(len(prompts))
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), max_size=20))
def test_every_section_is_stored_once(prompts: list[list[str]]) -> None:
    ledger = Ledger(None)
    for prompt in prompts:
        ledger.add(turn_row(), lazily(*prompt))
    stored = ledger.read("SELECT count(*) FROM section")[0][0]
    ledger.close()

    assert stored == len({tuple(prompt[: n + 1]) for prompt in prompts for n in range(len(prompt))})
