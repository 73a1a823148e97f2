"""Answers of the embedded engine as the client gets them: figures that agree, and limits in words that it acts on."""

import json
from collections.abc import Generator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.engine_child import EngineCommand
from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.seam import Target
from tests.client.conftest import Ask
from tests.support.backend import ScriptedBackend
from tests.support.engine_home import assert_reads_only_what_is_new, make_engine_home, n_read
from tests.support.gateway import Answer, RunningGateway, request, running_gateway
from tests.support.long_model import long_model
from tests.support.marker_model import call, marker_model
from tests.support.script import in_order

WINDOW, N_WORDS = 2_000, 1_000
TITLE = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "maxLength": 30},
        "tags": {"type": "array", "maxItems": 2, "items": {"enum": ["a", "b"]}},
    },
    "required": ["title", "tags"],
    "additionalProperties": False,
}
BASH = {"name": "Bash", "description": "Runs.", "input_schema": {"type": "object", "properties": {"command": {}}}}


class Asked:
    """A gateway with a real engine, and requests to two models: one follows a script, the other talks for long."""

    def __init__(self, gateway: RunningGateway, script: Path, long: Path) -> None:
        self.gateway, self.script, self.long = gateway, script, long
        self._numbers = count(1)

    def ask(self, model: Path, body: Any = None, *, path: str = "/v1/messages", **fields: Any) -> Answer:
        session = self.gateway.session(Target(kind="mlx", base_url="engine", model=str(model)))
        body = request(**fields) if body is None else body
        return self.gateway.ask("POST", path, body, token=session.token)


@pytest.fixture(scope="module")
def engine_answers(tmp_path_factory: pytest.TempPathFactory) -> Generator[Asked]:
    folder = tmp_path_factory.mktemp("engine")
    steps = [
        ("zqplain", "I would say one thing and another thing and a third."),
        ("zqtool", "Let me look.\n" + call("Bash", command="ls") + "\n" + call("Bash", command="pwd")),
    ]
    script = marker_model(folder / "script", steps)
    long = long_model(folder / "long", n_words=N_WORDS, n_context=WINDOW)
    command = EngineCommand(cache=folder / "cache", log_file=folder / "engine.log")
    with running_gateway(engine=EngineProcess(command)) as gateway:
        yield Asked(gateway, script, long)


def usages(answer: Answer) -> tuple[dict[str, int], dict[str, int]]:
    """At the beginning and at the end."""
    started = next(event["message"] for event in answer.events if event["type"] == "message_start")
    ended = next(event for event in answer.events if event["type"] == "message_delta")
    return started["usage"], ended["usage"]


def stop(answer: Answer) -> tuple[str, str | None]:
    delta = next(event["delta"] for event in answer.events if event["type"] == "message_delta")
    return delta["stop_reason"], delta["stop_sequence"]


def n_prompt(usage: dict[str, int]) -> int:
    return usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]


def test_the_clients_own_prompt_is_counted_as_the_turn_reads_it(engine_answers: Asked, ask: Ask) -> None:
    with ScriptedBackend(in_order()) as refusing:  # it gets the request as the client wrote it
        ask(refusing, "zqplain, in the client's own words", "--model", "scripted", mode="anthropic")
        body = refusing.turns[0].body
    counted = engine_answers.ask(engine_answers.script, body, path="/v1/messages/count_tokens").json["input_tokens"]
    answer = engine_answers.ask(engine_answers.script, body)
    again = engine_answers.ask(engine_answers.script, body | {"stream": False})
    started, ended = usages(answer)
    assert (n_prompt(started), n_prompt(ended), n_prompt(again.json["usage"])) == (counted, counted, counted)
    assert counted > 10_000
    assert started | {"output_tokens": 0} == ended | {"output_tokens": 0}
    assert started["cache_read_input_tokens"] == 0
    assert again.json["usage"]["input_tokens"] == 1
    assert again.json["usage"]["output_tokens"] == ended["output_tokens"] > 1
    assert answer.text == again.json["content"][0]["text"] == "I would say one thing and another thing and a third."


def test_calls_come_whole_with_ids_of_their_own(engine_answers: Asked) -> None:
    answer = engine_answers.ask(engine_answers.script, words="zqtool", tools=[BASH])
    starts = [event["content_block"] for event in answer.events if event["type"] == "content_block_start"]
    deltas = [event for event in answer.events if event["type"] == "content_block_delta"]
    arguments = [
        "".join(event["delta"].get("partial_json", "") for event in deltas if event["index"] == n) for n in (1, 2)
    ]
    assert [start["type"] for start in starts] == ["text", "tool_use", "tool_use"]
    assert [json.loads(text) for text in arguments] == [{"command": "ls"}, {"command": "pwd"}]
    assert len({start["id"] for start in starts[1:]}) == 2
    assert stop(answer) == ("tool_use", None)


@pytest.mark.parametrize("model", ["script", "long"])
def test_a_title_comes_in_the_form_that_was_asked_for(engine_answers: Asked, model: str) -> None:
    """Neither of these models would write JSON by itself."""
    form = {"type": "json_schema", "schema": TITLE}
    folder: Path = getattr(engine_answers, model)
    answer = engine_answers.ask(folder, words="zqplain", output_config={"format": form}, max_tokens=200)
    title = json.loads(answer.text)
    assert set(title) == {"title", "tags"}
    assert len(title["title"]) <= 30
    assert set(title["tags"]) <= {"a", "b"}
    assert stop(answer) == ("end_turn", None)


def test_a_form_that_is_no_schema_is_refused(engine_answers: Asked) -> None:
    form = {"type": "json_schema", "schema": {"type": "no such type"}}
    answer = engine_answers.ask(engine_answers.script, words="x", output_config={"format": form})
    assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


def test_a_stop_sequence_ends_the_answer_before_it(engine_answers: Asked) -> None:
    answer = engine_answers.ask(engine_answers.script, words="zqplain", stop_sequences=["never", "er thing a"])
    assert answer.text == "I would say one thing and anoth"
    assert stop(answer) == ("stop_sequence", "er thing a")


def test_the_limit_of_the_request_ends_the_answer(engine_answers: Asked) -> None:
    answer = engine_answers.ask(engine_answers.long, words="talk", max_tokens=7)
    assert stop(answer) == ("max_tokens", None)
    assert usages(answer)[1]["output_tokens"] == 7


def test_an_answer_that_fills_the_window_ends_there_and_says_so(engine_answers: Asked) -> None:
    answer = engine_answers.ask(engine_answers.long, words="talk " * 600, max_tokens=N_WORDS)
    ended = usages(answer)[1]
    assert stop(answer) == ("model_context_window_exceeded", None)
    assert n_prompt(ended) + ended["output_tokens"] == WINDOW


def test_a_prompt_beyond_the_window_is_refused_with_both_figures(engine_answers: Asked) -> None:
    words = "talk " * 3_000
    counted = engine_answers.ask(engine_answers.long, request(words), path="/v1/messages/count_tokens").json[
        "input_tokens"
    ]
    answer = engine_answers.ask(engine_answers.long, words=words)
    assert answer.status == 400
    assert answer.json["error"] == {
        "type": "invalid_request_error",
        "message": f"prompt is too long: {counted} tokens > {WINDOW} maximum",
    }


def test_the_client_tells_the_person_that_a_prompt_is_too_long(tmp_path: Path) -> None:
    """It believes in a larger window than the model has."""
    model = long_model(tmp_path / "small", n_words=10, n_context=4_000)
    with make_engine_home(tmp_path / "home", model) as engine:
        done = engine.home.run("-p", "x", *engine.launch, ANYCLAUDE_CONTEXT_WINDOW="40000")
        (server,) = engine.home.status()
    (turn,) = server["turns"]
    assert done.returncode == 1
    assert "Prompt is too long" in done.stdout
    assert "limit 4000" in done.stdout
    assert turn["error"].startswith("invalid_request_error: prompt is too long: ")


def test_a_conversation_that_outgrows_the_models_window_is_compacted_and_goes_on(tmp_path: Path) -> None:
    steps = [
        ("zqsum", "<analysis>much</analysis><summary>They talked of zqafter.</summary>"),
        ("zqafter", "It goes on."),
    ]
    model = marker_model(tmp_path / "model", steps, n_context=16_000)
    with make_engine_home(tmp_path / "home", model) as engine:
        conversation = engine.conversation("--tools", "Bash", ANYCLAUDE_CONTEXT_WINDOW="40000")
        conversation.say("zqsum " + "alpha " * 1_000)
        assert conversation.say("beta " * 4_700) == "It goes on."
        first, summary, after = conversation.turns(3)
        assert conversation.failures() == ["invalid_request_error"]
    assert [turn.request_class for turn in (first, summary, after)] == ["main", "compaction", "main"]
    assert_reads_only_what_is_new([first, summary])
    assert n_read(after) < (after.tokens_prompt or 0) - 3_000
