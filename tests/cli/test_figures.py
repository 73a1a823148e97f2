"""`stats`, `cache why` and `prompt`, from a ledger that the test has written."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest

from anyclaude.prompt.sections import Section
from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.turns import TurnRow
from tests.support.home import Home

PROMISED = (
    "id", "started_at", "session", "agent", "request_class", "project", "backend", "model", "tokens_prompt",
    "tokens_cached", "tokens_prefilled", "tokens_out", "ttft_s", "duration_s", "stop_reason", "tool_calls", "repairs",
    "error",
)  # fmt: skip


def row(**fields: Any) -> TurnRow:
    known: dict[str, Any] = {
        "request_id": "req_0", "started_at": time.time(), "launch": "l", "session": "s1", "agent": None,
        "request_class": "main", "entrypoint": "cli", "project": "/p", "backend": "mlx-lm", "base_url": "http://x",
        "model": "org/m", "tokens_prompt": 1000, "tokens_cached": None, "tokens_prefilled": None, "tokens_out": 5,
        "ttft_s": 1.5, "duration_s": 2.0, "stop_reason": "end_turn", "tool_calls": 0, "repairs": 0, "error": None,
    }  # fmt: skip
    return TurnRow(**(known | fields))


def sections(*texts: str) -> list[Section]:
    return [Section("text", f"messages.{n}.text.0", text, "user") for n, text in enumerate(texts)]


@pytest.fixture
def written(home: Home) -> Home:
    """Three turns: a session's first, one that grew from it, and another session's that differs in its second part."""
    home.state.mkdir(parents=True, mode=0o700)
    head, first = "a" * 3000, "b" * 1000
    now = time.time()
    record(
        home,
        (
            row(request_id="req_a1", started_at=now, tokens_cached=0, tokens_prefilled=3000, ttft_s=4.5),
            sections(head, first),
        ),
        (
            row(request_id="req_a2", started_at=now + 5, tokens_cached=400, tokens_prefilled=100),
            sections(head, first, "c"),
        ),
        (
            row(request_id="req_b3", started_at=now + 10, session="s2", model="org/m", tokens_cached=800),
            sections(head, "b" * 600 + "x" * 400),
        ),
    )
    return home


def record(home: Home, *turns: tuple[TurnRow, Sequence[Section]]) -> None:
    ledger = Ledger(home.state / "ledger.sqlite3")
    for turn, parts in turns:
        ledger.add(turn, lambda parts=parts: [part.row() for part in parts])
    ledger.close()


def shown(home: Home, *arguments: str) -> str:
    done = home.run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(home: Home, *arguments: str) -> str:
    done = home.run(*arguments)
    assert done.returncode == 2
    return done.stderr


@pytest.mark.parametrize("arguments", [("stats",), ("stats", "--turns"), ("cache", "why"), ("prompt", "show")])
def test_before_the_first_turn_there_is_nothing_and_no_error(home: Home, arguments: tuple[str, ...]) -> None:
    assert "no turns" in shown(home, *arguments)
    assert not (home.state / "ledger.sqlite3").exists()


def test_stats_sum_up_and_say_how_time_saved_is_computed(written: Home) -> None:
    text = shown(written, "stats")
    assert "today: 3 turns" in text
    assert "3,000, as the servers counted them" in text
    assert "1,200 (40.0%" in text
    assert "1.8 s = cached tokens x (time to first piece / tokens read" in text
    assert "1.50 ms a token, measured over 3,000 tokens in 1 turn" in text


def test_stats_choose_by_session_project_model_and_days(written: Home) -> None:
    record(written, (row(request_id="req_old", started_at=time.time() - 5 * 86400), sections("z")))

    def count(*arguments: str) -> int:
        return json.loads(shown(written, "stats", "--json", *arguments))["summary"]["total"]["turns"]

    assert count() == 3
    assert count("--all") == 4
    assert count("--days", "9") == 4
    assert count("--session", "s2") == 1
    assert count("--all", "--project", "/p") == 4
    assert count("--project", "/elsewhere") == 0
    assert count("--model", "other") == 0
    assert "a whole number of days" in refused(written, "stats", "--days", "soon")


def test_turns_are_one_json_object_a_line_with_the_promised_names(written: Home) -> None:
    lines = [json.loads(line) for line in shown(written, "stats", "--turns", "--json").splitlines()]
    assert [line["id"] for line in lines] == [1, 2, 3]
    assert all(set(PROMISED) <= line.keys() for line in lines)
    assert [line["tokens_cached"] for line in lines] == [0, 400, 800]


def test_why_of_a_prompt_that_grew_finds_the_server_out(written: Home) -> None:
    text = shown(written, "cache", "why", "2")
    assert "the prompt only grew, by 1 of 3 sections" in text
    assert "could be cached      1,000 tokens, as the server counted that turn's prompt" in text
    assert "was cached           400 tokens, as the server told" in text
    assert "The server read again what had not changed" in text


def test_why_does_not_blame_a_server_for_a_turn_that_ran_beside(written: Home) -> None:
    record(written, (row(request_id="req_c4", session="s4", tokens_cached=0), sections("a" * 3000, "d")))
    text = shown(written, "cache", "why", "4")
    assert "Turn 3 was not read yet when this one began" in text
    assert "The server read again" not in text


def test_why_names_the_section_that_changed_and_where(written: Home) -> None:
    text = shown(written, "cache", "why")
    assert "Compared with turn" in text
    assert "of this project: messages.1.text.0 (text) changed between characters 512 and 768" in text
    found = json.loads(shown(written, "cache", "why", "last", "--json"))
    assert (found["turn"], found["verdict"], found["scope"]) == (3, "changed", "project")
    assert found["section"]["name"] == "messages.1.text.0"
    assert (found["section"]["from_character"], found["section"]["to_character"]) == (512, 768)
    assert (found["tokens_could_be_cached"], found["tokens_cached"], found["is_estimate"]) == (878, 800, True)


def test_why_of_a_first_turn_says_that_there_is_none_before(written: Home) -> None:
    assert "There is no earlier turn" in shown(written, "cache", "why", "1")


def test_a_turn_is_named_by_number_request_or_last(written: Home) -> None:
    by_number = shown(written, "cache", "why", "2")
    assert shown(written, "cache", "why", "req_a2") == by_number
    assert "there is no turn 77" in refused(written, "cache", "why", "77")
    assert "there is no turn req_a" in refused(written, "prompt", "show", "req_a")  # two begin like this
    assert "names no turn" in refused(written, "prompt", "show", "me")
    assert "anyclaude -- prompt show me" in refused(written, "prompt", "show", "me")


def test_prompt_show_lists_sections_with_tokens_and_digests(written: Home) -> None:
    found = json.loads(shown(written, "prompt", "show", "1", "--json"))
    assert [(part["name"], part["characters"]) for part in found["sections"]] == [
        ("messages.0.text.0", 3000),
        ("messages.1.text.0", 1000),
    ]
    assert sum(part["tokens_estimated"] for part in found["sections"]) == found["tokens_prompt"] == 1000
    text = shown(written, "prompt", "show", "1")
    assert found["sections"][0]["digest"][:12] in text
    assert "2 sections, 4,000 characters, 1000 tokens" in text


def test_prompt_diff_shows_what_differs_and_counts_what_does_not(written: Home) -> None:
    found = json.loads(shown(written, "prompt", "diff", "1", "3", "--json"))
    assert (found["turns"], found["equal"]) == ([1, 3], 1)
    assert [(part["change"], part["name"]) for part in found["changed"]] == [
        ("-", "messages.1.text.0"),
        ("+", "messages.1.text.0"),
    ]
    assert "1 section from the first on equal (3,000 characters)" in shown(written, "prompt", "diff", "1", "3")
    assert json.loads(shown(written, "prompt", "diff", "2", "--json"))["turns"] == [1, 2]
    assert "has no earlier turn to compare with" in refused(written, "prompt", "diff", "1")


def test_an_empty_ledger_is_no_unknown_turn(home: Home) -> None:
    home.state.mkdir(parents=True, mode=0o700)
    record(home)
    assert "no turns are recorded yet" in refused(home, "cache", "why")


def test_a_model_is_found_by_the_name_that_the_tables_show(written: Home) -> None:
    assert "today, model m: 3 turns" in shown(written, "stats", "--model", "m")
    assert "today, model rg/m: no turns; --all" in shown(written, "stats", "--model", "rg/m")


def test_days_and_all_at_once_are_refused(written: Home) -> None:
    assert "exclude each other" in refused(written, "stats", "--all", "--days", "2")


def test_why_says_that_a_turn_failed(written: Home) -> None:
    record(written, (row(request_id="req_f4", error="api_error", tokens_prompt=None), sections("a" * 3000, "e")))
    assert "main of session s1, failed: api_error\n" in shown(written, "cache", "why", "4")


def test_why_says_where_a_server_had_more_than_the_sections_tell(written: Home) -> None:
    later = time.time() + 20
    more = row(request_id="req_g4", session="s5", started_at=later, tokens_cached=990)
    record(written, (more, sections("a" * 3000, "y" * 1000)))
    text = shown(written, "cache", "why", "4")
    assert "could be cached      about 750 tokens" in text
    assert "The server had more than that in its cache" in text


def test_doctor_and_traces_do_without_a_ledger_that_cannot_be_read(home: Home) -> None:
    home.state.mkdir(parents=True, mode=0o700)
    (home.state / "ledger.sqlite3").write_bytes(b"no database" * 1000)
    assert "note     ledger: the ledger" in home.run("doctor").stdout
    listed = home.run("trace", "ls")
    assert (listed.returncode, listed.stdout[:21]) == (0, "nothing is traced yet")
    assert "is damaged" in listed.stderr
