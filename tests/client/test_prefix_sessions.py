"""Sessions of one project, another project, another day: what a new prompt shares with those before it, and what
`cache why` names where it differs."""

import json
import subprocess
from typing import Any

import pytest
from msgspec.structs import replace

from anyclaude.prompt.explain import difference
from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.home import Home
from tests.support.recorded_session import (
    Recorded,
    assert_each_extends,
    assert_grew,
    assert_only_grew,
    bodies,
    n_shared,
    n_shared_characters,
    recorded,
    share_kept,
    why,
)
from tests.support.script import in_order, words_of_person

# Two places whose local dates always differ, so that no clock has to be set.
FIRST_DAY, LATER_DAY = {"TZ": "Etc/GMT+12"}, {"TZ": "Pacific/Kiritimati"}


@pytest.fixture
def repository(home: Home) -> Home:
    """The project under git, with one commit."""
    _git(home)
    return home


def _git(home: Home) -> None:
    author = ["-c", "user.name=A Person", "-c", "user.email=person@example.org"]
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=home.project, check=True)
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "Begin"], cwd=home.project, check=True)


def answers(n: int) -> list[Any]:
    return [chat.text(f"answer {number}") for number in range(n)]


def before_words(turn: Recorded) -> list[str]:
    """The names of all sections but the person's words."""
    assert turn.sections[-1].kind == "text"
    return turn.names[:-1]


def share(earlier: Recorded, later: Recorded) -> float:
    """Of the earlier prompt's characters, those before the first difference, as closely as the ledger knows it."""
    found = difference(earlier.sections, later.sections)
    n_characters = earlier.n_characters if found is None else found.n_shared_characters
    return n_characters / earlier.n_characters


def test_continue_resume_and_fork_only_grow(ask: Ask, repository: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(*answers(5)))
    first = json.loads(ask(backend, "--output-format", "json", "one", mode="mlx-lm").stdout)["session_id"]
    (repository.project / "new.txt").touch()
    (repository.project / "CLAUDE.md").write_text("Be brief.\n")
    ask(backend, "--continue", "two", mode="mlx-lm")
    ask(backend, "--resume", first, "three", mode="mlx-lm")
    ask(backend, "--resume", first, "--fork-session", "four", mode="mlx-lm")
    ask(backend, "--resume", first, "five", mode="mlx-lm")
    one, two, three, fork, five = recorded(repository, 5)
    assert_only_grew([one, two, three, fork])
    assert_grew(three, five)
    assert fork.row.session != first
    assert {turn.row.session for turn in (one, two, three, five)} == {first}
    told = why(repository, fork)
    assert (told["verdict"], told["scope"], told["compared_with"]) == ("grown", "project", three.row.id)
    sent = bodies(backend)
    assert_each_extends(sent[:4])
    assert_each_extends([*sent[:3], sent[4]])


def test_a_new_session_of_a_project_differs_in_the_persons_words_only(
    ask: Ask, repository: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(*answers(2)))
    ask(backend, "the question of one session")
    ask(backend, "something else")
    one, two = recorded(repository, 2)
    assert before_words(one) == before_words(two)
    assert n_shared(one, two) == len(one.sections) - 1
    equal = n_shared_characters(one, two)
    assert one.n_characters - equal == len("the question of one session")
    assert two.n_characters - equal == len("something else")
    sent = bodies(backend)
    assert sent[0]["tools"] == sent[1]["tools"]
    assert sent[0]["messages"][:-1] == sent[1]["messages"][:-1]
    openings = [body["messages"][-1]["content"].removesuffix(words_of_person(body)) for body in sent]
    assert openings[0] == openings[1]
    print(f"a new session shares {equal:,} of {two.n_characters:,} characters")
    assert equal / two.n_characters >= 48_389 / 48_403  # measured once by hand
    told = why(repository, two)
    assert (told["scope"], told["section"]["kind"], told["section"]["name"]) == ("project", "text", two.names[-1])


def test_a_changed_git_status_costs_two_percent_and_is_named(ask: Ask, repository: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(*answers(2)))
    ask(backend, "one")
    (repository.project / "new.txt").touch()
    ask(backend, "two")
    one, two = recorded(repository, 2)
    kept = share_kept(repository, *bodies(backend))
    print(f"after a new untracked file: {kept:.2%}")
    assert round(100 * kept, 1) >= 98.3
    section = why(repository, two)["section"]
    assert (section["change"], section["kind"], section["name"]) == ("changed", "reminder", "messages.0.reminder.0")
    assert n_shared(one, two) == two.names.index("messages.0.reminder.0")


def test_another_day_costs_the_end_of_the_preamble_only(ask: Ask, repository: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(*answers(2)))
    ask(backend, "one", **FIRST_DAY)
    ask(backend, "two", **LATER_DAY)
    one, two = recorded(repository, 2)
    section = why(repository, two)["section"]
    assert (section["change"], section["kind"], section["name"]) == ("changed", "preamble", "preamble.0")
    preamble = one.sections[one.names.index("preamble.0")]
    assert section["to_character"] == preamble.n_characters
    assert section["from_character"] >= preamble.n_characters - 256
    sent = bodies(backend)
    assert sent[0]["tools"] == sent[1]["tools"]
    assert sent[0]["messages"][0] == sent[1]["messages"][0]  # the system turn
    kept = share_kept(repository, *sent)
    print(f"another day: {kept:.2%}, from character {section['from_character']:,} of preamble.0 on")
    assert kept >= 0.97


def test_another_project_shares_the_tools_and_the_words_before_its_folder(
    ask: Ask, repository: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(*answers(2)))
    ask(backend, "one")
    other = replace(repository, project=repository.root / "another project")
    other.project.mkdir()
    _git(other)
    done = other.run("-p", "two", "--mode", "openai", "--base-url", backend.url)
    assert done.returncode == 0, done.stderr
    one, two = recorded(repository, 2)
    found = difference(one.sections, two.sections)
    assert found is not None
    assert (found.kind, found.name) == ("system", "system.1")
    kept = share_kept(repository, *bodies(backend))
    print(f"another project: {kept:.2%}, {share(one, two):.2%} by the ledger's spans")
    assert kept >= 0.723
    assert why(repository, two)["verdict"] == "first"  # compared are turns of one project


def test_a_new_day_in_mid_session_is_appended(ask: Ask, home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(*answers(3)))
    ask(backend, "one", **FIRST_DAY)
    ask(backend, "--continue", "two", **LATER_DAY)
    ask(backend, "--continue", "three", **LATER_DAY)
    assert_only_grew(recorded(home, 3))
    sent = bodies(backend)
    assert_each_extends(sent)
    assert "date" in sent[1]["messages"][-1]["content"].partition("two")[2]
