"""Sessions on the embedded engine, through the whole gateway, with an engine that speaks by a script."""

import json
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.seam import Target
from anyclaude.prompt.own import own_signature
from anyclaude.server.origin import ahead_of
from anyclaude.server.process import process_start
from anyclaude.server.sessions import NewSession, Session, Sessions
from tests.support.gateway import MANAGEMENT, Answer, RunningGateway, request, running_gateway
from tests.support.scripted_engine import (
    ANSWER,
    BEGAN,
    CANCELLED,
    FINISHED,
    LOADED,
    Life,
    ScriptedEngine,
    Step,
    failed,
    text,
    thought,
)
from tests.support.wait import wait_until

MODEL = "/models/scripted"
AGENT = "claude-cli/2.1.330 (external, cli)"
TOOL = {
    "name": "Bash",
    "description": "Runs.",
    "input_schema": {"$schema": "x", "type": "object", "properties": {"command": {"type": "string"}}},
}


class Served:
    """One gateway with its engine and a session on it."""

    def __init__(self, gateway: RunningGateway, engine: ScriptedEngine) -> None:
        self.gateway = gateway
        self.engine = engine
        self.session = self.new_session()

    def new_session(self, *, is_private: bool = False, **fields: Any) -> Session:
        chosen = Target(kind="mlx", base_url="engine", model=MODEL, **fields)
        return self.gateway.session(chosen, is_private=is_private)

    def ask(self, session: Session | None = None, *, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        token = (session or self.session).token
        return self.gateway.ask("POST", "/v1/messages", request(**fields), token=token, **(headers or {}))

    def manage(self, method: str, path: str, body: Any = None) -> Answer:
        return self.gateway.ask(method, path, body, token=MANAGEMENT)


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Generator[Serve]:
    logger = logging.getLogger("anyclaude")
    level = logger.level
    with ExitStack() as stack:
        stack.callback(logger.setLevel, level)  # a launch that registers sets it for the whole process

        def start(*lives: Life, note_after_s: float = 60.0) -> Served:
            engine = ScriptedEngine(tmp_path, *lives)
            process = EngineProcess(engine.command)
            gateway = stack.enter_context(running_gateway(engine=process, note_after_s=note_after_s))
            return Served(gateway, engine)

        yield start


def test_a_turn_is_answered_with_exact_figures_from_the_first_event_on(serve: Serve) -> None:
    served = serve()
    answer = served.ask()

    assert answer.text == "hello"
    start, delta = answer.events[0], answer.events[-2]
    assert start["message"]["model"] == "asked-for"
    figures = {"input_tokens": 100, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 0}
    assert start["message"]["usage"] == figures | {"output_tokens": 0}
    assert delta["usage"] == figures | {"output_tokens": 5}
    recent = served.gateway.gateway.ledger.recent
    wait_until(lambda: recent, "the turn is recorded")
    row = recent[-1]
    assert (row.tokens_prompt, row.tokens_cached, row.tokens_prefilled, row.tokens_out) == (1000, 900, 100, 5)
    assert (row.backend, row.model, row.error) == ("mlx", MODEL, None)


def test_an_answer_in_one_piece_is_the_same_answer(serve: Serve) -> None:
    answer = serve().ask(stream=False).json
    assert answer["content"] == [{"type": "text", "text": "hello"}]
    assert answer["usage"]["cache_read_input_tokens"] == 900
    assert answer["stop_reason"] == "end_turn"


def test_what_the_model_is_to_read_arrives_as_turns_tools_and_sampling(serve: Serve) -> None:
    served = serve()
    signed = {"type": "thinking", "thinking": "let me look", "signature": "sig-1"}
    call = {"type": "tool_use", "id": "toolu_0123456789ab_abcdefgh1", "name": "Bash", "input": {"command": "ls"}}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "file"}
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    answer = served.ask(
        system="Be brief.",
        messages=[
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": [signed, call]},
            {"role": "user", "content": [result, picture]},
        ],
        tools=[TOOL],
        temperature=0.5,
        top_p=0.9,
        top_k=20,
        stop_sequences=["</x>"],
        thinking={"type": "adaptive"},
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
        max_tokens=77,
    )
    assert answer.status == 200
    frame = served.engine.seen("generate")[0]
    assert (frame["model"], frame["max_tokens"], frame["stop_sequences"]) == (MODEL, 77, ["</x>"])
    assert frame["sampling"] == {"temperature": 0.5, "top_p": 0.9, "top_k": 20}
    assert frame["json_schema"] == {"type": "object"}
    parameters = {"type": "object", "properties": {"command": {"type": "string"}}}
    assert frame["chat"]["tools"] == [
        {"type": "function", "function": {"name": "Bash", "description": "Runs.", "parameters": parameters}}
    ]
    assert list(frame["chat"]["tools"][0]) == ["type", "function"]
    assert frame["chat"]["thinks"] is True
    system, look, thinks, file, note = frame["chat"]["turns"]
    assert system == {"role": "system", "content": "Be brief."}
    assert look == {"role": "user", "content": "look"}
    assert thinks == {
        "role": "assistant",
        "reasoning": "let me look",
        "signature": "sig-1",
        "calls": [{"id": call["id"], "name": "Bash", "arguments": '{"command":"ls"}'}],
    }
    assert file == {"role": "tool", "content": "file", "call_id": call["id"]}
    assert "image not shown" in note["content"]


def test_the_prompt_is_fitted_to_what_the_loaded_models_template_can_take(serve: Serve) -> None:
    fitting = {"alternates": True, "one_call": True, "nine_ids": True, "system_in_user": True}
    served = serve({"load": [[LOADED | {"capabilities": {"window": 8_000} | fitting}]]})
    calls = [{"type": "tool_use", "id": f"toolu_{n}", "name": "Bash", "input": {}} for n in "ab"]
    results = [{"type": "tool_result", "tool_use_id": call["id"], "content": call["id"]} for call in calls]
    served.ask(
        system="Be brief.",
        messages=[
            {"role": "user", "content": "look"},
            {"role": "assistant", "content": calls},
            {"role": "user", "content": results},
        ],
    )
    turns = served.engine.seen("generate")[0]["chat"]["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "tool", "assistant", "tool"]
    assert turns[0]["content"] == "Be brief.\nlook"
    for turn in turns[1::2]:
        assert re.fullmatch(r"[A-Za-z0-9]{9}", turn["calls"][0]["id"])


def test_a_model_is_loaded_before_its_first_turn_and_not_again(serve: Serve) -> None:
    served = serve()
    served.ask()
    served.ask()
    assert [frame["type"] for frame in served.engine.seen()] == ["load", "generate", "generate"]


@pytest.mark.parametrize(
    ("headers", "request_class"),
    [
        ({}, "main"),
        ({"x_claude_code_request_class": "main"}, "main"),
        ({"x_claude_code_request_class": "compaction"}, "main"),
        ({"x_claude_code_request_class": "subagent"}, "agent"),
        ({"x_claude_code_request_class": "workflow"}, "agent"),
        ({"x_claude_code_agent_id": "a1"}, "agent"),
        ({"x_claude_code_request_class": "auxiliary"}, "side"),
        ({"x_claude_code_request_class": "something new"}, "main"),
    ],
)
def test_the_clients_hints_tell_the_engine_whose_request_it_is(
    serve: Serve, headers: dict[str, str], request_class: str
) -> None:
    served = serve()
    served.ask(headers=headers | {"user_agent": AGENT})
    frame = served.engine.seen("generate")[0]
    assert frame.get("request_class", "main") == request_class
    assert frame.get("ahead", "") == (ahead_of("/project", "cli") if request_class == "main" else "")
    assert not frame.get("is_private", False)


def test_a_private_launch_says_so_to_the_engine(serve: Serve) -> None:
    served = serve()
    served.ask(served.new_session(is_private=True))
    assert served.engine.seen("generate")[0]["is_private"] is True


def test_a_launch_that_registers_is_prepared_for_without_being_waited_for(serve: Serve) -> None:
    served = serve({"load": [[{"wait": "loaded"}, LOADED]]})
    new = {
        "pid": os.getpid(), "pid_started": process_start(os.getpid()), "project": "/work",
        "target": {"kind": "mlx", "base_url": "engine", "model": MODEL},
    }  # fmt: skip
    answer = served.manage("POST", "/anyclaude/sessions", new)
    assert answer.status == 201
    assert not served.engine.seen("prepare")

    served.engine.open("loaded")
    prepare = served.engine.wait_for("prepare")
    assert (prepare["model"], prepare["ahead"]) == (MODEL, ahead_of("/work", "cli"))
    token = answer.json["token"]
    served.gateway.ask("POST", "/v1/messages", request(), token=token, user_agent=AGENT)
    assert served.engine.seen("generate")[0]["ahead"] == prepare["ahead"]


def test_a_server_that_takes_over_prepares_for_the_sessions_that_it_finds(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)
    new = NewSession(
        pid=os.getpid(),
        pid_started=process_start(os.getpid()),
        project="/work",
        target=Target(kind="mlx", base_url="engine", model=MODEL),
    )
    sessions = Sessions(None)
    for _ in range(3):
        sessions.add(new)
    with running_gateway(engine=EngineProcess(engine.command), sessions=sessions):
        assert engine.wait_for("prepare")["ahead"] == ahead_of("/work", "cli")
    assert len(engine.seen("prepare")) == 1


def test_what_a_launch_set_for_the_engine_is_what_it_is_started_with(serve: Serve) -> None:
    served = serve()
    options = {"folder": str(served.engine.command.options["folder"]), "kv_disk_mb": 5}
    served.ask(served.new_session(engine_options=options))
    assert json.loads(served.engine.arguments[-1]) == options


def test_a_preparation_that_fails_is_nobodys_error(serve: Serve) -> None:
    served = serve({"load": [[failed("failed", "no memory")], [LOADED]]})
    new = {
        "pid": os.getpid(), "pid_started": process_start(os.getpid()), "project": "/work",
        "target": {"kind": "mlx", "base_url": "engine", "model": MODEL},
    }  # fmt: skip
    answer = served.manage("POST", "/anyclaude/sessions", new)
    served.engine.wait_for("load")
    assert served.gateway.ask("POST", "/v1/messages", request(), token=answer.json["token"]).text == "hello"


@pytest.mark.parametrize(
    ("life", "status", "kind", "says"),
    [
        ({"load": [[failed("missing", "no model in /models/scripted")]]}, 404, "not_found_error", "no model in"),
        ({"load": [[failed("refused", "wants to run code")]]}, 400, "invalid_request_error", "wants to run code"),
        ({"generate": [[failed("overloaded", "no memory")]]}, 529, "overloaded_error", "no memory"),
        (
            {"generate": [[failed("too_long", "", n_prompt=9, window=8)]]},
            400,
            "invalid_request_error",
            "prompt is too long: 9 tokens > 8 maximum",
        ),
        ({"generate": [[{"kill": "SIGKILL"}]]}, 529, "overloaded_error", "is started again"),
        ({"start": [{"say": "no mlx here"}, {"exit": 1}]}, 502, "api_error", "no mlx here"),
    ],
    ids=["missing", "refused", "overloaded", "too long", "killed", "does not start"],
)
def test_a_fault_before_the_answer_is_a_status_that_the_client_acts_on(
    serve: Serve, life: Life, status: int, kind: str, says: str
) -> None:
    answer = serve(life).ask()
    assert (answer.status, answer.json["error"]["type"]) == (status, kind)
    assert says in answer.json["error"]["message"]


def test_a_refused_model_is_not_asked_for_again_by_the_client(serve: Serve) -> None:
    assert serve({"load": [[failed("refused", "broken")]]}).ask().headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ({"kill": "SIGKILL"}, "overloaded_error"),
        ({"raw": "garbage garbage"}, "overloaded_error"),
        (failed("failed", "a defect"), "api_error"),
    ],
)
def test_a_fault_in_mid_stream_is_an_error_event_and_the_next_turn_is_served(
    serve: Serve, step: Step, kind: str
) -> None:
    served = serve({"generate": [[BEGAN, text("half of a"), step], ANSWER]}, {})
    answer = served.ask()
    assert answer.status == 200
    assert answer.kinds[-1] == "error"
    assert answer.events[-1]["error"]["type"] == kind
    assert served.ask().text == "hello"
    shown = served.manage("GET", "/anyclaude/statistics").json["server"]["engine"]
    assert shown["n_ends"] == (0 if kind == "api_error" else 1)


def test_the_engine_is_killed_in_mid_stream_from_outside_and_comes_back(serve: Serve) -> None:
    served = serve({"generate": [[BEGAN, text("half"), CANCELLED]]}, {})
    found: list[Answer] = []
    threads = [threading.Thread(target=lambda: found.append(served.ask())) for _ in range(3)]
    for thread in threads:
        thread.start()
    served.engine.wait_for("generate", 3)
    wait_until(lambda: all(_has_begun(turn) for turn in served.gateway.gateway.running), "all have begun")
    served.engine.kill(signal.SIGKILL)
    for thread in threads:
        thread.join(10)
    assert [answer.events[-1]["error"]["type"] for answer in found] == ["overloaded_error"] * 3
    assert served.ask().text == "hello"
    assert len(served.engine.pids) == 2


def _has_begun(turn: Any) -> bool:
    return turn.meter.ttft_s is not None


def test_a_client_that_leaves_cancels_its_turn_in_the_engine(serve: Serve) -> None:
    served = serve({"generate": [[BEGAN, text("x"), CANCELLED]]})
    connection = served.gateway.connect()
    headers = {"authorization": f"Bearer {served.session.token}", "content-type": "application/json"}
    connection.request("POST", "/v1/messages", json.dumps(request()), headers)
    served.engine.wait_for("generate")
    connection.getresponse().read(10)
    connection.close()
    assert served.engine.wait_for("cancel")["id"] == served.engine.seen("generate")[0]["id"]
    wait_until(lambda: not served.gateway.gateway.running, "the turn has ended")


def test_reasoning_calls_and_signature_reach_the_client_in_order(serve: Serve) -> None:
    call = {"type": "call", "index": 0, "arguments": "", "call_id": "toolu_1", "name": "Bash"}
    arguments = {"type": "call", "index": 0, "arguments": '{"command":"ls"}'}
    steps = [BEGAN | {"signature": "sig"}, thought("hm"), text("look"), call, arguments]
    served = serve({"generate": [[*steps, FINISHED | {"reason": "tool_calls"}]]})
    answer = served.ask(stream=False).json
    thinking, words, used = answer["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": "sig"}
    assert words["text"] == "look"
    assert (used["name"], used["input"]) == ("Bash", {"command": "ls"})
    assert used["id"] == "toolu_1"
    assert answer["stop_reason"] == "tool_use"


def test_how_far_the_prompt_is_read_is_in_the_status_and_after_a_while_in_the_stream(serve: Serve) -> None:
    reading = {"type": "prefilled", "n_read": 512, "n_total": 1000}
    served = serve({"generate": [[BEGAN | {"n_cached": 0}, reading, {"wait": "read"}, *ANSWER[1:]]]}, note_after_s=0.0)
    found: list[Answer] = []
    thread = threading.Thread(target=lambda: found.append(served.ask(thinking={"type": "adaptive"})))
    thread.start()
    wait_until(lambda: _running(served) and _running(served)[0]["n_read"] == 512, "the reading is shown")
    assert _running(served)[0]["n_total"] == 1000
    served.engine.open("read")
    thread.join(10)
    events = found[0].events
    told = "Reading the prompt: 512 of 1,000 tokens."
    assert [event["delta"] for event in events if event["type"] == "content_block_delta"] == [
        {"type": "thinking_delta", "thinking": told},
        {"type": "signature_delta", "signature": own_signature(told)},
        {"type": "text_delta", "text": "hello"},
    ]
    assert [event["index"] for event in events if event["type"] == "content_block_start"] == [0, 1]


def _running(served: Served) -> list[Any]:
    return served.manage("GET", "/anyclaude/statistics").json["server"]["running"]


def test_a_count_is_the_engines_and_says_so(serve: Serve) -> None:
    served = serve()
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    for _ in range(2):
        answer = served.gateway.ask("POST", "/v1/messages/count_tokens", body, token=served.session.token)
        assert (answer.json, answer.headers["x-anyclaude-count"]) == ({"input_tokens": 123}, "measured")
    assert len(served.engine.seen("count")) == 1
    assert served.engine.seen("count")[0]["chat"]["turns"] == [{"role": "user", "content": "hi"}]


def test_where_the_engine_cannot_count_an_estimate_says_so(serve: Serve) -> None:
    served = serve({"load": [[failed("missing", "no model")]]})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    answer = served.gateway.ask("POST", "/v1/messages/count_tokens", body, token=served.session.token)
    assert (answer.status, answer.headers["x-anyclaude-count"]) == (200, "estimated")


def test_the_status_tells_of_the_engine_and_asking_for_it_starts_none(serve: Serve) -> None:
    served = serve()
    shown = served.manage("GET", "/anyclaude/engine").json
    assert (shown["process"]["is_running"], shown["engine"], shown["models"]) == (False, None, None)
    for what in ("models", "statistics", "unload"):
        assert served.manage("POST", "/anyclaude/engine", {"what": what}).json == {"told": None}
    assert not served.engine.pids

    served.ask()
    shown = served.manage("GET", "/anyclaude/engine").json
    assert shown["engine"] == {"scripted": True}
    assert shown["process"]["models"] == [MODEL]
    assert shown["process"]["pid"] == served.engine.pids[0]


def test_the_status_of_an_engine_that_is_busy_does_not_wait_for_it(serve: Serve) -> None:
    served = serve({"ask": [[CANCELLED]]})
    served.ask()
    shown = served.manage("GET", "/anyclaude/engine").json
    assert (shown["process"]["is_running"], shown["engine"], shown["models"]) == (True, None, None)
    assert served.engine.wait_for("cancel")["id"] == served.engine.seen("ask")[0]["id"]


def test_commands_for_models_and_the_cache_reach_the_engine(serve: Serve) -> None:
    served = serve()
    loaded = served.manage("POST", "/anyclaude/engine", {"what": "load", "names": [MODEL]}).json
    assert loaded["told"][MODEL]["window"] == 32_000
    told = served.manage("POST", "/anyclaude/engine", {"what": "cache.rm", "names": ["ab", "cd"]}).json
    assert told == {"told": {"scripted": True}}
    assert [(frame["what"], frame["names"]) for frame in served.engine.seen("ask")] == [("cache.rm", ["ab", "cd"])]


@pytest.mark.parametrize("body", [{"what": "format the disk"}, {"names": ["x"]}, {"what": "load", "names": [1]}, []])
def test_a_command_that_does_not_exist_is_refused_before_an_engine_starts(serve: Serve, body: Any) -> None:
    served = serve()
    assert served.manage("POST", "/anyclaude/engine", body).status == 400
    assert not served.engine.pids


def test_a_gateway_without_an_engine_says_so(gateway: RunningGateway) -> None:
    session = gateway.session(Target(kind="mlx", base_url="engine", model=MODEL))
    answer = gateway.ask("POST", "/v1/messages", request(), token=session.token)
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert gateway.ask("GET", "/anyclaude/engine", token=MANAGEMENT).status == 404


def test_a_gateway_that_stops_takes_its_engine_along_and_tells_the_client_to_come_back(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[BEGAN, text("x"), CANCELLED]], "stays": True})
    found: list[Answer] = []
    with running_gateway(engine=EngineProcess(engine.command)) as gateway:
        served = Served(gateway, engine)
        thread = threading.Thread(target=lambda: found.append(served.ask()))
        thread.start()
        engine.wait_for("generate")
        wait_until(lambda: any(_has_begun(turn) for turn in gateway.gateway.running), "the answer has begun")
    thread.join(10)
    assert found[0].events[-1]["error"]["type"] == "overloaded_error"
    assert "restarting" in found[0].events[-1]["error"]["message"]
    assert all(engine.has_gone(pid) for pid in engine.pids)
