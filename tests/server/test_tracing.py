"""Traces of a running gateway: only what was asked for is recorded, whole, and with nothing that opens anything."""

import json
import logging
import os
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from anyclaude.server.process import process_start
from anyclaude.server.sessions import NewSession
from anyclaude.telemetry.trace_events import answer_of
from anyclaude.telemetry.trace_files import Limits, Trace, TraceFolder, read_trace
from anyclaude.telemetry.traces import Traces
from tests.server.test_native import BLOCK, BLOCK_STOP, DELTA, END, START, STOP, streams
from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import MANAGEMENT, RunningGateway, request, running_gateway, target
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]
KEY = "key-of-the-server-0815"


@pytest.fixture
def folder(tmp_path: Path) -> TraceFolder:
    return TraceFolder(tmp_path / "traces")


@pytest.fixture
def gateway(folder: TraceFolder) -> Generator[RunningGateway]:
    with running_gateway(traces=Traces(folder.path, secrets=[MANAGEMENT])) as running:
        yield running


def ok(exchange: Exchange) -> None:
    exchange.answer(chat.text("hello you"))


def ended(folder: TraceFolder, n: int = 1) -> list[Trace]:
    """So many finished traces: the client has its answer a little before them."""

    def found() -> list[Trace]:
        traces = [read_trace(path) for path in folder.files() if path.stat().st_size]
        return [trace for trace in traces if trace.end is not None]

    wait_until(lambda: len(found()) >= n, f"{n} turns are traced")
    return found()


def assert_all_written(gateway: RunningGateway) -> None:
    assert gateway.gateway.traces is not None
    gateway.gateway.traces.flush()
    assert gateway.gateway.traces.n_lost == 0


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": "d", "input_schema": {"type": "object"}}


def test_nothing_is_traced_while_the_switch_is_off(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    token = gateway.session(target(scripted(ok).url)).token
    assert gateway.ask("POST", "/v1/messages", request(), token=token).status == 200
    folder.turn_on(Limits())
    assert gateway.ask("POST", "/v1/messages", request("second"), token=token).status == 200
    folder.turn_off()
    assert gateway.ask("POST", "/v1/messages", request("third"), token=token).status == 200
    (found,) = ended(folder)
    assert_all_written(gateway)
    assert len(folder.files()) == 1
    assert found.request is not None
    assert found.request["messages"][0]["content"] == "second"


def test_a_folder_of_traces_that_cannot_be_looked_into_ends_no_turn(tmp_path: Path, scripted: Start) -> None:
    unreadable = tmp_path / ("x" * 300)  # the system refuses the name
    with running_gateway(traces=Traces(unreadable)) as gateway:
        token = gateway.session(target(scripted(ok).url)).token
        assert gateway.ask("POST", "/v1/messages", request(), token=token).text == "hello you"


@pytest.mark.parametrize("stream", [True, False])
def test_a_turn_is_recorded_as_it_was_asked_and_answered(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start, stream: bool
) -> None:
    folder.turn_on(Limits())
    session = gateway.session(target(scripted(ok).url, api_key=KEY))
    body = request("hello", stream=stream, metadata={"user_id": "device"}, system="be brief", odd={"field": 1})
    answer = gateway.ask(
        "POST", "/v1/messages?beta=true", body, token=session.token, x_claude_code_session_id="conversation",
        x_claude_code_request_class="main", user_agent="claude-cli/2.1.330 (external, cli)", x_stainless_os="Linux",
        anthropic_beta="a,b", cookie="chocolate",
    )  # fmt: skip
    (found,) = ended(folder)
    assert found.request == {name: value for name, value in body.items() if name != "metadata"}
    assert found.header.request_id == answer.headers["request-id"]
    assert (found.header.session, found.header.launch) == ("conversation", session.id)
    assert found.header.headers == {
        "x-claude-code-session-id": "conversation",
        "x-claude-code-request-class": "main",
        "user-agent": "claude-cli/2.1.330 (external, cli)",
        "anthropic-beta": "a,b",
        "content-type": "application/json",
    }
    told = answer_of(found.events)
    assert (told.text, told.stop_reason, told.tokens.cached) == ("hello you", "end_turn", 900)
    assert found.end is not None
    assert (found.end.model, found.end.tokens_prompt, found.end.error) == ("scripted", 1000, None)
    assert sorted(event.at_s for event in found.events) == [event.at_s for event in found.events]
    assert found.events[-1].at_s <= found.end.duration_s


def test_a_private_launch_and_a_count_are_never_traced(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    folder.turn_on(Limits())
    found, pid = target(scripted(ok).url), os.getpid()
    new = NewSession(pid=pid, pid_started=process_start(pid), project="/p", target=found, is_private=True)
    private = gateway.gateway.sessions.add(new).token
    assert gateway.ask("POST", "/v1/messages", request("secret plan"), token=private).status == 200
    session = gateway.session(found)
    assert gateway.ask("POST", "/v1/messages/count_tokens", request(), token=session.token).status == 200
    assert gateway.ask("POST", "/v1/messages", request("last"), token=session.token).status == 200
    assert [trace.header.launch for trace in ended(folder)] == [session.id]
    assert_all_written(gateway)
    assert len(folder.files()) == 1


def test_events_of_a_native_server_are_recorded_as_they_came(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    folder.turn_on(Limits())
    odd = {"type": "of_tomorrow", "index": 0, "nested": [{"a": 1.5, "b": None}]}
    backend = scripted(streams(START, BLOCK, odd, DELTA, BLOCK_STOP, END, STOP))
    token = gateway.session(target(backend.url, kind="anthropic")).token
    gateway.ask("POST", "/v1/messages", request(), token=token)
    (found,) = ended(folder)
    start, *others = [event.data for event in found.events]
    assert start["message"] == {"id": "m", "model": "asked-for", "usage": {"input_tokens": 7}}
    assert others == [BLOCK, odd, DELTA, BLOCK_STOP, END, STOP]


def test_tokens_and_keys_of_every_session_are_taken_out(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    folder.turn_on(Limits())
    other = gateway.session(target("http://elsewhere", api_key="key-of-another-launch"))
    answer = f"I see {KEY} and {MANAGEMENT}, {other.token} and key-of-another-launch."
    backend = scripted(lambda exchange: exchange.answer(chat.text(answer)))
    session = gateway.session(target(backend.url, api_key=KEY))
    arguments = json.dumps({"command": f"curl -H 'x: {session.token}'"})
    call = {"type": "tool_use", "id": "t", "name": "Bash", "input": {"command": f"echo {KEY}"}}
    messages = [
        {"role": "user", "content": f"use {session.token} or {other.token}"},
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": arguments}]},
    ]
    told = gateway.ask("POST", "/v1/messages", request(messages=messages), token=session.token)
    assert told.text == answer  # the client gets what the model said
    (found,) = ended(folder)
    assert answer_of(found.events).text == "I see [secret] and [secret], [secret] and [secret]."
    data = folder.files()[0].read_text("utf-8")
    for secret in (KEY, MANAGEMENT, session.token, other.token, "key-of-another-launch"):
        assert secret not in data


def test_a_server_that_repeats_the_key_puts_it_neither_into_the_trace_nor_into_the_log(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    folder.turn_on(Limits())
    backend = scripted(lambda exchange: exchange.json(401, {"error": {"message": f"{KEY} is no key of ours"}}))
    token = gateway.session(target(backend.url, api_key=KEY)).token
    assert gateway.ask("POST", "/v1/messages", request(), token=token).status == 403
    (found,) = ended(folder)
    assert found.end is not None
    assert found.end.error is not None
    assert found.end.error.startswith("permission_error: ")
    assert "[secret] is no key of ours" in found.end.error
    assert KEY not in folder.files()[0].read_text("utf-8")
    wait_until(lambda: "[secret] is no key of ours" in caplog.text, "the turn is in the log")
    assert KEY not in caplog.text


def test_a_turn_whose_client_goes_away_ends_with_what_was_there(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    folder.turn_on(Limits())

    def half(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks([chat.delta(content="half of "), chat.delta(content="a sentence")])
        exchange.wait_until_closed()

    token = gateway.session(target(scripted(half).url)).token
    connection = gateway.connect()
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection.request("POST", "/v1/messages", body=json.dumps(request()), headers=headers)
    response = connection.getresponse()
    while b"sentence" not in response.readline():
        pass
    response.close()
    connection.close()
    (found,) = ended(folder)
    assert answer_of(found.events).text == "half of a sentence"
    assert found.end is not None
    assert found.end.error == "the client went away"


def test_a_server_that_stops_writes_what_it_has_and_why_the_turn_ended(folder: TraceFolder, scripted: Start) -> None:
    folder.turn_on(Limits())
    asked = threading.Thread()

    def half(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks([chat.delta(content="half of ")])
        exchange.wait_until_closed()

    backend = scripted(half)
    with running_gateway(traces=Traces(folder.path)) as gateway:
        token = gateway.session(target(backend.url)).token
        asked = threading.Thread(target=lambda: gateway.ask("POST", "/v1/messages", request(), token=token))
        asked.start()
        running = gateway.gateway.running
        wait_until(lambda: any(turn.meter.ttft_s for turn in running), "the answer has begun")
    asked.join()
    (path,) = folder.files()
    found = read_trace(path)
    assert answer_of(found.events).text == "half of "
    assert found.end is not None
    assert "anyclaude is restarting" in (found.end.error or "")


def test_the_head_of_the_conversation_is_recorded_with_the_turn(
    gateway: RunningGateway, folder: TraceFolder, scripted: Start
) -> None:
    folder.turn_on(Limits())
    token = gateway.session(target(scripted(ok).url)).token
    first = request("hello", tools=[tool("Bash")])
    gateway.ask("POST", "/v1/messages", first, token=token)
    said = [*first["messages"], {"role": "assistant", "content": "hi"}, {"role": "user", "content": "more"}]
    gateway.ask("POST", "/v1/messages", request(messages=said, tools=[tool("Ask"), tool("Bash")]), token=token)
    later = ended(folder, 2)[1]
    assert [joined["name"] for joined in later.header.head["joined"]] == ["Ask"]
    assert [known["name"] for known in later.header.head["tools"]] == ["Bash"]
