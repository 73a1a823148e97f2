"""Servers that speak the Messages API themselves: what they say comes through, what they do wrong does not."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import Answer, RunningGateway, request, target
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]


def events(*found: dict[str, Any]) -> Iterator[bytes]:
    return (f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in found)


START = {"type": "message_start", "message": {"id": "m", "model": "theirs", "usage": {"input_tokens": 7}}}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "Bash"}}
DELTA = {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}}
BLOCK_STOP = {"type": "content_block_stop", "index": 0}
END = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}}
STOP = {"type": "message_stop"}
ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


def streams(*found: dict[str, Any]) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.start()
        for data in events(*found):
            exchange.send(data)

    return script


def _missing(exchange: Exchange) -> None:
    exchange.json(404, {})


def _unreadable(exchange: Exchange) -> None:
    exchange.json(200, {"tokens": "many"})


def asked(gateway: RunningGateway, backend: ScriptedBackend, **fields: Any) -> Answer:
    token = gateway.session(target(backend.url, kind="anthropic")).token
    return gateway.ask("POST", "/v1/messages", request(**fields), token=token)


def test_a_turn_is_measured_by_what_the_server_told(gateway: RunningGateway, scripted: Start) -> None:
    asked(gateway, scripted(streams(START, BLOCK, DELTA, BLOCK_STOP, END, STOP)))
    wait_until(lambda: gateway.gateway.ledger.recent, "the turn is recorded")
    (row,) = gateway.gateway.ledger.recent
    assert (row.tokens_prompt, row.tokens_cached, row.tokens_prefilled, row.tokens_out) == (7, None, None, 3)
    assert (row.stop_reason, row.tool_calls, row.error) == ("tool_use", 1, None)
    assert row.ttft_s is not None


def test_an_answer_in_one_piece_is_put_together_from_its_stream(gateway: RunningGateway, scripted: Start) -> None:
    answer = asked(gateway, scripted(streams(START, BLOCK, DELTA, BLOCK_STOP, END, STOP)), stream=False).json
    assert answer["model"] == "asked-for"
    assert answer["content"] == [{"type": "tool_use", "id": "t", "name": "Bash", "input": {}}]
    assert answer["usage"] == {"input_tokens": 7, "output_tokens": 3}


def test_a_refusal_keeps_the_words_that_the_client_acts_on(gateway: RunningGateway, scripted: Start) -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "capability_rejected: effort"}}
    answer = asked(gateway, scripted(lambda e: e.json(400, error, x_should_retry="false", retry_after="4")))
    assert (answer.status, answer.json["error"]) == (400, error["error"])
    assert (answer.headers["x-should-retry"], answer.headers["retry-after"]) == ("false", "4")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_the_persons_matter_and_not_the_clients(
    gateway: RunningGateway, scripted: Start, status: int
) -> None:
    error = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}
    answer = asked(gateway, scripted(lambda e: e.json(status, error)))
    assert (answer.status, answer.json["error"]["type"]) == (403, "permission_error")
    assert "check ANYCLAUDE_API_KEY" in answer.json["error"]["message"]


def test_an_error_instead_of_an_answer_is_a_status(gateway: RunningGateway, scripted: Start) -> None:
    answer = asked(gateway, scripted(streams(ERROR)))
    assert answer.status == 502
    assert answer.json["error"]["message"].endswith("Overloaded")


def test_an_error_in_mid_stream_is_passed_on_as_it_is(gateway: RunningGateway, scripted: Start) -> None:
    answer = asked(gateway, scripted(streams(START, ERROR)))
    assert answer.events[-1] == ERROR


def test_a_stream_that_ends_too_early_ends_in_an_error_event(gateway: RunningGateway, scripted: Start) -> None:
    answer = asked(gateway, scripted(streams(START, BLOCK, DELTA)))
    assert answer.kinds[-1] == "error"
    assert "broke off" in answer.events[-1]["error"]["message"]


def test_an_event_that_is_no_json_is_an_error(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b"event: message_start\ndata: <html>\n\n")

    answer = asked(gateway, scripted(script))
    assert (answer.status, answer.json["error"]["type"]) == (502, "api_error")


def test_the_servers_own_count_is_given_where_it_has_one(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        assert exchange.path == "/v1/messages/count_tokens"
        assert "stream" not in exchange.body
        exchange.json(200, {"input_tokens": 4321})

    backend = scripted(script)
    token = gateway.session(target(backend.url, kind="anthropic")).token
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}
    assert gateway.ask("POST", "/v1/messages/count_tokens", body, token=token).json == {"input_tokens": 4321}


@pytest.mark.parametrize("script", [_missing, _unreadable])
def test_a_count_is_estimated_where_the_server_gives_none(
    gateway: RunningGateway, scripted: Start, script: Script
) -> None:
    token = gateway.session(target(scripted(script).url, kind="anthropic")).token
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 400}]}
    answer = gateway.ask("POST", "/v1/messages/count_tokens", body, token=token)
    assert 100 <= answer.json["input_tokens"] < 200
    assert answer.headers["x-anyclaude-count"] == "estimated"


def test_half_an_emoji_in_the_request_reaches_the_server_as_a_replacement(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(streams(START, END, STOP))
    token = gateway.session(target(backend.url, kind="anthropic")).token
    body = b'{"model":"m","max_tokens":5,"stream":true,"messages":[{"role":"user","content":"cut \\ud83d"}]}'
    assert gateway.ask("POST", "/v1/messages", body, token=token).status == 200
    assert backend.turns[0].body["messages"][0]["content"] == "cut \ufffd"
