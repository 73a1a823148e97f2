"""What a model server can do wrong. Each fault ends in a clear error within its limit; nothing hangs."""

import http.client
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import Answer, RunningGateway, request, target
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]
HTML = b"<html><head><style>b{}</style><title>Oops</title></head><body><b>out of\nmemory</b></body></html>"


def _mid_stream(exchange: Exchange) -> None:
    exchange.start()
    exchange.chunks([chat.delta(content="half of a sent")])


def _dies_before_headers(exchange: Exchange) -> None:
    exchange.reset()


def _says_nothing_useful(exchange: Exchange) -> None:
    exchange.start()
    exchange.send(b"data: <this is not JSON>\n\n")


def _garbage_instead_of_http(exchange: Exchange) -> None:
    exchange.send(b"\x16\x03\x01 not http at all\r\n\r\n")


def _html(exchange: Exchange) -> None:
    exchange.start(500, "text/html")
    exchange.send(HTML)


def _unauthorized(exchange: Exchange) -> None:
    exchange.json(401, {"error": {"message": "Invalid API Key"}})


def _busy(exchange: Exchange) -> None:
    exchange.json(503, {"error": {"message": "Loading model"}}, retry_after="3")


def _too_long(exchange: Exchange) -> None:
    error = {"message": "request (41210 tokens) exceeds the available context size (32768 tokens), try increasing it"}
    exchange.json(400, {"error": error | {"n_prompt_tokens": 41210, "n_ctx": 32768}})


def _too_long_in_the_stream(exchange: Exchange) -> None:
    words = (
        "Input does not fit in context length. "
        "The input has 31430 tokens, but the context length only supports 30000 tokens."
    )
    exchange.start()
    exchange.send(b'event: error\ndata: {"error":{"message":"' + words.encode() + b'"},"message":"x"}\n\n')


def _no_such_model(exchange: Exchange) -> None:
    exchange.json(404, {"error": "model 'x' not found"})


def _limited(exchange: Exchange) -> None:
    exchange.json(429, {"error": {"message": "slow down"}}, retry_after="2")


def _nothing(_: Exchange) -> None:
    pass


def _hangs(exchange: Exchange) -> None:
    exchange.wait_until_closed()


def _empty(exchange: Exchange) -> None:
    exchange.start()


@pytest.mark.parametrize(
    ("script", "status", "kind", "words", "retry"),
    [
        (_dies_before_headers, 502, "api_error", "broke the connection", None),
        (_garbage_instead_of_http, 502, "api_error", "broke the connection", None),
        (_says_nothing_useful, 502, "api_error", "not a chat completion", None),
        (_empty, 502, "api_error", "broke off before it answered", None),
        (_html, 502, "api_error", "Oops out of memory", "false"),
        (_unauthorized, 403, "permission_error", "Invalid API Key", "false"),
        (_busy, 529, "overloaded_error", "Loading model", None),
        (_too_long, 400, "invalid_request_error", "prompt is too long: 41210 tokens > 32768 maximum", None),
        (_too_long_in_the_stream, 400, "invalid_request_error", "prompt is too long: 31430 tokens > 30000", None),
        (_no_such_model, 404, "not_found_error", "model 'x' not found", None),
        (_limited, 429, "rate_limit_error", "slow down", None),
    ],
)
def test_a_fault_before_the_answer_is_a_status_that_the_client_acts_on(
    gateway: RunningGateway,
    scripted: Start,
    script: Script,
    status: int,
    kind: str,
    words: str,
    retry: str | None,
) -> None:
    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    for stream in (True, False):
        answer = gateway.ask("POST", "/v1/messages", request(stream=stream), token=token)
        assert answer.status == status
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == kind
        assert words in answer.json["error"]["message"]
        assert answer.json["request_id"] == answer.headers["request-id"]
        assert answer.headers.get("x-should-retry") == retry


def test_waiting_times_of_the_server_are_passed_on(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(_limited)
    token = gateway.session(target(backend.url)).token
    assert gateway.ask("POST", "/v1/messages", request(), token=token).headers["retry-after"] == "2"


@pytest.mark.parametrize("end", [_nothing, Exchange.reset], ids=["closed", "reset"])
def test_a_server_that_dies_in_mid_stream_ends_in_an_error_event(
    gateway: RunningGateway, scripted: Start, end: Script
) -> None:
    def script(exchange: Exchange) -> None:
        _mid_stream(exchange)
        end(exchange)

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert answer.status == 200
    assert answer.text == "half of a sent"
    assert answer.kinds[-1] == "error"
    assert "message_stop" not in answer.kinds
    assert "broke" in answer.events[-1]["error"]["message"]


def test_an_error_chunk_in_mid_stream_ends_in_an_error_event(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        _mid_stream(exchange)
        exchange.chunks([{"error": {"message": "CUDA out of memory", "code": 500}}])
        exchange.done()

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert answer.events[-1]["error"]["message"].endswith("CUDA out of memory")


def test_arguments_that_are_cut_off_by_the_limit_end_as_max_tokens(gateway: RunningGateway, scripted: Start) -> None:
    pieces = list(chat.call_pieces("Write", {"file_path": "/a", "content": "x" * 100}))[:5]
    backend = scripted(lambda exchange: exchange.answer([*pieces, chat.finish("length"), chat.usage()]))
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert answer.events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert answer.kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_a_server_that_hangs_is_given_up_after_its_silence(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(_hangs)
    token = gateway.session(target(backend.url, silence_s=0.5)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert (answer.status, answer.json["error"]["type"]) == (504, "timeout_error")
    assert "sent nothing for" in answer.json["error"]["message"]


def test_a_server_that_hangs_in_mid_stream_is_given_up_too(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        _mid_stream(exchange)
        exchange.wait_until_closed()

    backend = scripted(script)
    token = gateway.session(target(backend.url, silence_s=0.5)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert answer.events[-1]["error"]["type"] == "timeout_error"
    assert backend.turns[0].was_closed.wait(60)


def test_a_server_that_is_down_is_named_and_not_tried_again(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(_empty)
    backend.close()
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert answer.status == 502
    assert answer.headers["x-should-retry"] == "false"
    assert f"at {backend.url} does not answer" in answer.json["error"]["message"]


def test_a_plain_json_answer_to_a_streamed_request_is_taken(gateway: RunningGateway, scripted: Start) -> None:
    whole = {"choices": [{"message": {"content": "in one piece"}, "finish_reason": "stop"}], "usage": None}
    backend = scripted(lambda exchange: exchange.json(200, whole))
    token = gateway.session(target(backend.url)).token
    assert gateway.ask("POST", "/v1/messages", request(), token=token).text == "in one piece"


def test_headers_and_pings_come_while_the_server_reads_the_prompt(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        time_to_answer.acquire(timeout=60)
        exchange.answer(chat.text("at last"))

    time_to_answer = threading.Semaphore(0)
    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    connection = _asked(gateway, token)
    response = connection.getresponse()  # returns only because headers do not wait for the backend
    assert response.status == 200
    assert response.readline() == b"event: ping\n"
    time_to_answer.release()
    rest = response.read()
    assert b"event: message_stop" in rest
    connection.close()


def test_progress_comments_are_read_and_shown(gateway: RunningGateway, scripted: Start) -> None:
    shown: list[dict[str, Any]] = []

    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b": keepalive 2048/18490\n\n")
        wait_until(lambda: gateway.gateway.statistics().running[0]["n_total"], "the progress is known")
        shown.extend(gateway.gateway.statistics().running)
        exchange.chunks(chat.text("done"))
        exchange.done()

    backend = scripted(script)
    token = gateway.session(target(backend.url, kind="mlx-lm")).token
    assert gateway.ask("POST", "/v1/messages", request(), token=token).text == "done"
    (running,) = shown
    assert running["model"] == "scripted"
    assert (running["n_read"], running["n_total"], running["is_answering"]) == (2048, 18490, False)


@pytest.mark.parametrize("begun", [False, True], ids=["while the prompt is read", "in mid-stream"])
def test_when_the_client_leaves_the_backends_connection_is_closed(
    gateway: RunningGateway, scripted: Start, begun: bool
) -> None:
    def script(exchange: Exchange) -> None:
        if begun:
            _mid_stream(exchange)
        exchange.wait_until_closed()

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    connection = _asked(gateway, token)
    assert backend.arrived.acquire(timeout=60)
    if begun:
        connection.getresponse().readline()
    assert connection.sock is not None
    connection.sock.close()
    connection.close()
    assert backend.turns[0].was_closed.wait(60)


def test_stopping_ends_every_open_stream_with_an_error_event(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        _mid_stream(exchange)
        exchange.wait_until_closed()

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    connection = _asked(gateway, token)
    response = connection.getresponse()
    response.readline()
    gateway.server.stop()
    rest = response.read()
    assert b"event: error" in rest
    assert b"overloaded_error" in rest
    connection.close()


def test_a_slow_client_holds_up_the_backend_and_loses_nothing(gateway: RunningGateway, scripted: Start) -> None:
    words = "0123456789" * 4000

    def script(exchange: Exchange) -> None:
        exchange.start()
        for _ in range(500):
            exchange.chunks([chat.delta(content=words)])
        exchange.chunks([chat.finish("stop")])
        exchange.done()

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    connection = _asked(gateway, token)
    response = connection.getresponse()
    n_bytes = 0
    while part := response.read(1 << 16):
        n_bytes += len(part)
    assert n_bytes > 500 * len(words)
    connection.close()


def test_thirty_counts_at_once_and_a_turn_beside_them_are_answered(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url)).token
    body = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}]}

    def count(_: int) -> int:
        return gateway.ask("POST", "/v1/messages/count_tokens", body, token=token).json["input_tokens"]

    with ThreadPoolExecutor(31) as pool:
        turn = pool.submit(gateway.ask, "POST", "/v1/messages", request(), token=token)
        counts = list(pool.map(count, range(30)))
    assert len(set(counts)) <= 2  # before and after the turn beside them corrected the estimate
    assert turn.result().text == "ok"


def _asked(gateway: RunningGateway, token: str) -> http.client.HTTPConnection:
    """A connection on which the request was sent and nothing was read yet."""
    connection = gateway.connect()
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    connection.request("POST", "/v1/messages", json.dumps(request()), headers)
    return connection


def test_structured_output_that_a_server_cannot_do_is_rejected_in_the_clients_words(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(_empty)
    token = gateway.session(target(backend.url, kind="mlx-lm")).token
    wanted = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    answer = gateway.ask("POST", "/v1/messages", request(output_config=wanted), token=token)
    assert (answer.status, answer.json["error"]["message"]) == (
        400,
        "capability_rejected: structured_outputs_unsupported",
    )
    assert backend.turns == []


def test_a_web_page_instead_of_an_answer_is_quoted_and_not_tried_again(
    gateway: RunningGateway, scripted: Start
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start(200, "text/html")
        exchange.send(HTML)

    token = gateway.session(target(scripted(script).url)).token
    answer = gateway.ask("POST", "/v1/messages", request(), token=token)
    assert (answer.status, answer.headers["x-should-retry"]) == (502, "false")
    assert "a web page instead of an answer: Oops out of memory" in answer.json["error"]["message"]


def test_a_server_that_is_started_again_is_waited_for(gateway: RunningGateway) -> None:
    with ScriptedBackend(lambda exchange: exchange.answer(chat.text("first"))) as backend:
        token = gateway.session(target(backend.url)).token
        assert gateway.ask("POST", "/v1/messages", request(), token=token).text == "first"
        address = int(backend.url.rpartition(":")[2])
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(gateway.ask, "POST", "/v1/messages", request(), token=token)
        wait_until(lambda: gateway.gateway.running, "the turn has begun")
        with ScriptedBackend(lambda exchange: exchange.answer(chat.text("second")), port=address):
            assert turn.result(60).text == "second"


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def _with_picture(token: str, gateway: RunningGateway) -> Answer:
    content = [{"type": "text", "text": "look"}, PICTURE]
    body = request(messages=[{"role": "user", "content": content}])
    return gateway.ask("POST", "/v1/messages", body, token=token)


def test_a_picture_that_the_server_refuses_becomes_a_note_and_the_session_goes_on(
    gateway: RunningGateway, scripted: Start
) -> None:
    def script(exchange: Exchange) -> None:
        if b"image_url" in exchange.raw:
            exchange.json(500, {"error": {"message": "image input is not supported - hint: you need the mmproj"}})
        else:
            exchange.answer(chat.text("a picture?"))

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    assert _with_picture(token, gateway).text == "a picture?"
    assert len(backend.turns) == 2
    assert "[image not shown: image/png" in backend.turns[1].body["messages"][0]["content"]


def test_a_model_that_is_known_to_read_text_only_gets_no_picture(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url, takes_images=False)).token
    _with_picture(token, gateway)
    assert len(backend.turns) == 1
    assert b"image_url" not in backend.turns[0].raw


def test_a_turn_that_waits_for_its_first_piece_is_shown(gateway: RunningGateway, scripted: Start) -> None:
    go_on = threading.Event()

    def script(exchange: Exchange) -> None:
        go_on.wait(60)
        exchange.answer(chat.text("ok"))

    backend = scripted(script)
    session = gateway.session(target(backend.url))
    with ThreadPoolExecutor(1) as pool:
        turn = pool.submit(gateway.ask, "POST", "/v1/messages", request(), token=session.token)
        assert backend.arrived.acquire(timeout=60)
        (running,) = gateway.gateway.statistics().running
        assert (running["session"], running["is_answering"], running["n_read"]) == (session.id, False, None)
        go_on.set()
        assert turn.result(60).text == "ok"
    wait_until(lambda: not gateway.gateway.statistics().running, "the turn has ended")
