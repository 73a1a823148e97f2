"""The real client in `-p` mode: what goes in reaches the model, what the model says comes out, and nothing else."""

import json

import pytest

from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.home import Home
from tests.support.script import in_order, tool_names, words_of_person

NOTES = ("anyclaude: ", "[claude-code:unrecognized_model] ")


def test_the_answer_is_all_of_stdout_and_only_notes_are_on_stderr(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("the scripted answer")))
    done = ask(backend, "a question")
    assert (done.returncode, done.stdout) == (0, "the scripted answer\n")
    assert all(line.startswith(NOTES) for line in done.stderr.splitlines())
    assert f"anyclaude: scripted on OpenAI-compatible server at {backend.url}" in done.stderr.splitlines()
    assert words_of_person(backend.turns[0].body) == "a question"


def test_piped_text_reaches_the_model_together_with_the_question(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("ok")))
    done = ask(backend, "what is wrong here", stdin="line one\nZeile zwei äöü 🦜\n")
    assert done.returncode == 0
    said = words_of_person(backend.turns[0].body)
    assert "what is wrong here" in said
    assert "line one\nZeile zwei äöü 🦜" in said


def test_piped_text_alone_is_the_question(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("ok")))
    assert ask(backend, stdin="only this").returncode == 0
    assert words_of_person(backend.turns[0].body) == "only this"


@pytest.mark.parametrize(
    "words",
    [
        "grüße, «quotes» — dashes…",
        "emoji 👩‍👩‍👧‍👦 🏳️‍🌈 🧑🏽‍🚀 and flags 🇯🇵",
        "中文、日本語、한국어 שלום مرحبا",
        'lines\n\twith "tabs", \\backslashes\\ and \u2028 separators',
    ],
)
def test_any_script_of_the_world_arrives_as_it_was_said(ask: Ask, scripted: Scripted, words: str) -> None:
    backend = scripted(in_order(chat.text(words)))
    done = ask(backend, words)
    assert done.stdout == f"{words}\n"
    assert words_of_person(backend.turns[0].body) == words


def test_thoughts_are_not_part_of_the_printed_answer(ask: Ask, scripted: Scripted) -> None:
    thought = [chat.delta(reasoning_content="hidden "), chat.delta(reasoning_content="thought")]
    backend = scripted(in_order([*thought, *chat.text("the visible answer")]))
    done = ask(backend, "think")
    assert (done.returncode, done.stdout) == (0, "the visible answer\n")
    assert "hidden" not in done.stderr


def test_json_output_is_one_object_with_the_answer_and_the_measured_tokens(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("as json", cached=900)))
    result = json.loads(ask(backend, "--output-format", "json", "x").stdout)
    assert (result["type"], result["subtype"], result["is_error"]) == ("result", "success", False)
    assert result["result"] == "as json"
    usage = result["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (100, 900, 5)


def test_stream_json_output_carries_thoughts_and_pieces_as_they_came(ask: Ask, scripted: Scripted) -> None:
    words = "an answer in several pieces"
    backend = scripted(in_order([chat.delta(reasoning_content="a thought"), *chat.text(words)]))
    done = ask(backend, "--output-format", "stream-json", "--verbose", "--include-partial-messages", "x")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert (lines[0]["type"], lines[0]["subtype"], lines[0]["model"]) == ("system", "init", "scripted")
    assert (lines[-1]["type"], lines[-1]["result"]) == ("result", words)
    deltas = [line["event"]["delta"] for line in lines if line.get("event", {}).get("type") == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == words
    assert "".join(delta.get("thinking", "") for delta in deltas) == "a thought"


def test_the_context_window_that_the_server_told_is_the_clients(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("ok")))
    backend.window = 77_000
    result = json.loads(ask(backend, "--output-format", "json", "x").stdout)
    assert result["modelUsage"]["scripted"]["contextWindow"] == 77_000


def test_bare_mode_works_with_three_tools(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("bare answer")))
    done = ask(backend, "--bare", "x")
    assert (done.returncode, done.stdout) == (0, "bare answer\n")
    assert tool_names(backend.turns[0].body) == ["Bash", "Edit", "Read"]


def test_arguments_after_two_dashes_are_the_clients(home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("ok")))
    done = home.run("--mode", "openai", "--base-url", backend.url, "--", "-p", "status")
    assert (done.returncode, done.stdout) == (0, "ok\n")
    assert words_of_person(backend.turns[0].body) == "status"


def test_one_prompt_is_one_request_and_nothing_else_is_asked_of_the_model(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    backend = scripted(in_order(chat.text("ok")))
    ask(backend, "x")
    assert len(backend.turns) == 1
    (server,) = home.status()
    assert [(turn["request_class"], turn["stop_reason"], turn["error"]) for turn in server["turns"]] == [
        ("main", "end_turn", None)
    ]
    assert server["turns"][0]["tokens_cached"] == 900
