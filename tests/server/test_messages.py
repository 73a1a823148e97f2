"""Messages through the gateway, from a scripted server on a real socket to a client on another."""

import json
from collections.abc import Callable

from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import RunningGateway, request, target

Start = Callable[[Script], ScriptedBackend]


def test_a_streamed_answer_arrives_in_the_order_of_the_messages_api(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("hello you")))
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages?beta=true", request(), token=token)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["request-id"].startswith("req_")
    assert answer.kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert answer.text == "hello you"
    assert answer.events[0]["message"]["model"] == "asked-for"
    assert answer.events[-2]["usage"] == {
        "input_tokens": 100,
        "cache_read_input_tokens": 900,
        "cache_creation_input_tokens": 0,
        "output_tokens": 5,
    }


def test_an_answer_in_one_piece_holds_the_same(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.call("Bash", {"command": "ls"})))
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(stream=False), token=token).json
    assert answer["type"] == "message"
    assert answer["stop_reason"] == "tool_use"
    (block,) = answer["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "Bash", {"command": "ls"})
    assert answer["usage"]["cache_read_input_tokens"] == 900


def test_a_key_in_either_header_opens_the_gateway(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url)).token
    assert gateway.ask("POST", "/v1/messages", request(), x_api_key=token).status == 200
    assert gateway.ask("POST", "/v1/messages", request(), token=token, x_api_key="something else").status == 200


def test_newlines_and_odd_characters_of_a_prompt_reach_the_server_unchanged(
    gateway: RunningGateway, scripted: Start
) -> None:
    words = 'one\ntwo\r\n\n\tthree\\n "four" \u2028 <|im_end|> 🦀 '
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url, kind="mlx-lm")).token
    gateway.ask("POST", "/v1/messages", request(words), token=token)
    assert backend.turns[0].body["messages"] == [{"role": "user", "content": words}]
    assert "model" not in backend.turns[0].body


def test_every_model_name_is_answered_by_the_sessions_model(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url, models=("other",))).token
    for name in ("claude-haiku-5-5", "scripted", "other", "🦀"):
        answer = gateway.ask("POST", "/v1/messages", request(model=name), token=token)
        assert answer.events[0]["message"]["model"] == name
    assert [turn.body["model"] for turn in backend.turns] == ["scripted", "scripted", "other", "scripted"]


def test_the_output_limit_never_exceeds_what_the_server_can_do(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url, max_output_tokens=4096)).token
    gateway.ask("POST", "/v1/messages", request(max_tokens=128000), token=token)
    gateway.ask("POST", "/v1/messages", request(max_tokens=50), token=token)
    assert [turn.body["max_tokens"] for turn in backend.turns] == [4096, 50]


def test_the_backends_key_goes_to_the_backend_and_the_sessions_token_does_not(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    session = gateway.session(target(backend.url, api_key="key-of-the-backend"))
    gateway.ask("POST", "/v1/messages", request(), token=session.token)
    assert backend.turns[0].headers["authorization"] == "Bearer key-of-the-backend"
    assert session.token not in str(backend.turns[0].headers) + backend.turns[0].raw.decode()


def test_models_are_listed_and_named_one_by_one(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url, models=("a", "org/b"))).token
    listing = gateway.ask("GET", "/v1/models?limit=1000", token=token).json
    assert [entry["id"] for entry in listing["data"]] == ["scripted", "a", "org/b"]
    assert gateway.ask("GET", "/v1/models/org/b", token=token).json["type"] == "model"
    missing = gateway.ask("GET", "/v1/models/nope", token=token)
    assert (missing.status, missing.json["error"]["type"]) == (404, "not_found_error")


def test_a_count_is_answered_while_the_model_is_busy(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url)).token
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}]}
    answer = gateway.ask("POST", "/v1/messages/count_tokens", body, token=token)
    assert answer.status == 200
    assert 400 <= answer.json["input_tokens"] <= 700
    assert backend.turns == []


def test_a_native_server_gets_the_request_with_only_the_model_changed(gateway: RunningGateway, scripted: Start) -> None:
    def native(exchange: Exchange) -> None:
        exchange.start()
        start = {"type": "message_start", "message": {"id": "m", "model": "local", "usage": {"input_tokens": 7}}}
        end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}
        for event in (start, {"type": "later_invention", "x": [1]}, end, {"type": "message_stop"}):
            exchange.send(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    backend = scripted(native)
    token = gateway.session(target(backend.url, kind="anthropic", api_key="k")).token
    sent = request(unknown_field={"kept": [1, 2]}, system=[{"type": "text", "text": "s", "cache_control": {}}])
    answer = gateway.ask("POST", "/v1/messages", sent, token=token, anthropic_beta="some-beta-2026")
    assert answer.kinds == ["message_start", "later_invention", "message_delta", "message_stop"]
    assert answer.events[0]["message"]["model"] == "asked-for"
    assert backend.turns[0].path == "/v1/messages"
    assert backend.turns[0].body == sent | {"model": "scripted"}
    assert backend.turns[0].headers["anthropic-beta"] == "some-beta-2026"
    assert backend.turns[0].headers["x-api-key"] == "k"
