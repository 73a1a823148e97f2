from pathlib import Path

import pytest

from anyclaude.telemetry.branches import PER_PROJECT
from anyclaude.telemetry.ledger import Ledger
from tests.telemetry.rows import n_sections_in, record


def test_a_turn_is_compared_with_the_one_of_its_session_that_shares_most(ledger: Ledger) -> None:
    record(ledger, "a", "b")
    best = record(ledger, "a", "b", "c", "d")
    record(ledger, "a", "x", "y", "z")
    found = record(ledger, "a", "b", "c", "e")

    assert (found.compared_with, found.n_shared) == (best.id, 3)


def test_of_turns_that_share_the_same_the_newest_is_named(ledger: Ledger) -> None:
    record(ledger, "a", "b", "c")
    newer = record(ledger, "a", "b", "d")

    assert record(ledger, "a", "b", "e").compared_with == newer.id


def test_a_turn_of_its_own_session_goes_before_a_better_one_of_its_project(ledger: Ledger) -> None:
    own = record(ledger, "a")
    record(ledger, "a", "b", "c", session="other")
    found = record(ledger, "a", "b", "c", "d")

    assert (found.compared_with, found.n_shared) == (own.id, 1)


def test_without_one_in_its_session_the_best_of_its_project_counts(ledger: Ledger) -> None:
    record(ledger, "a", session="one")
    best = record(ledger, "a", "b", session="two")
    record(ledger, "z", session="new")
    found = record(ledger, "a", "b", "c", session="new")

    assert (found.compared_with, found.n_shared) == (best.id, 2)


def test_an_agents_turns_are_not_those_of_its_session(ledger: Ledger) -> None:
    record(ledger, "a", agent="one", project="/elsewhere")
    record(ledger, "a", agent=None, project="/elsewhere")

    assert record(ledger, "a", agent="two").compared_with is None
    assert record(ledger, "a", agent="one").compared_with == 1


@pytest.mark.parametrize("other", [{"model": "n"}, {"backend": "ollama"}, {"base_url": "http://two"}])
def test_another_models_or_servers_turn_shares_nothing(ledger: Ledger, other: dict[str, str]) -> None:
    record(ledger, "a", "b", **other)
    found = record(ledger, "a", "b", "c")

    assert (found.compared_with, found.n_shared) == (None, 0)


def test_a_turn_that_failed_before_its_answer_left_nothing_to_share(ledger: Ledger, path: Path) -> None:
    read = record(ledger, "a", error="the client went away", ttft_s=0.5)
    record(ledger, "a", "b", error="overloaded_error", ttft_s=None)
    again = Ledger(path)

    assert record(again, "a", "b", session="elsewhere").compared_with == read.id
    assert record(ledger, "a", "b").compared_with == read.id
    again.close()


def test_of_turns_in_another_project_nothing_is_shared(ledger: Ledger) -> None:
    record(ledger, "a", project="/one", session="one")

    assert record(ledger, "a", project="/two", session="two").compared_with is None


def test_a_branch_is_remembered_however_long_another_one_grows(ledger: Ledger) -> None:
    side = record(ledger, "title", "words")
    for n in range(1, 40):
        record(ledger, *(f"part {k}" for k in range(n)))

    assert record(ledger, "title", "more").compared_with == side.id
    assert record(ledger, "part 0", "part 1", "another way").n_shared == 2


def test_of_too_many_different_prompts_the_oldest_is_not_compared_with(ledger: Ledger) -> None:
    for n in range(PER_PROJECT + 1):
        record(ledger, f"prompt {n}")

    assert record(ledger, "prompt 1", "more").compared_with == 2
    assert record(ledger, "prompt 0", "more").compared_with is None


def test_memory_holds_the_sessions_of_late_and_the_file_all(ledger: Ledger) -> None:
    first = record(ledger, "a", session="0", project="/0")
    for n in range(1, 100):
        record(ledger, "a", "b", session=str(n), project=f"/{n}")

    assert len(ledger._branches._known) <= 32
    assert record(ledger, "a", session="0", project="/0").compared_with == first.id


def test_what_was_recorded_survives_a_restart(ledger: Ledger, path: Path) -> None:
    record(ledger, "title", "words")
    for n in range(1, 40):
        record(ledger, *(f"part {k}" for k in range(n)))
    ledger.close()
    again = Ledger(path)
    grown = record(again, *(f"part {k}" for k in range(41)))
    fork = record(again, "title", "words", "more", session="fork")
    again.close()

    assert (grown.compared_with, grown.n_shared) == (40, 39)
    assert (fork.compared_with, fork.n_shared) == (1, 2)
    assert n_sections_in(path) == 2 + 41 + 1
