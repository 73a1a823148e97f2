"""`count_tokens`: by the server that will do the work where it can count, and an estimate that says so elsewhere."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.recorded import STREAMS, TRANSCRIPTS
from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.counting import IN_ONE, RENDER, TOKENIZE, Routes, always, llama_server, paths, serving
from tests.support.gateway import Answer, RunningGateway, request, target
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]
COUNTED: dict[str, Routes] = {
    "llamacpp": llama_server(),
    "vllm": {TOKENIZE: always({"count": 56})},
    "anthropic": {"/v1/messages/count_tokens": always({"input_tokens": 56})},
}


def context(n: int) -> dict[str, Any]:
    """As `/context` asks: one tool or one text."""
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": f"text {n} " * (1 + n * 10)}]}
    if n % 2:
        body["messages"] = [{"role": "user", "content": "foo"}]
        body["tools"] = [{"name": f"Tool{n}", "description": "word " * n * 20, "input_schema": {"type": "object"}}]
    return body


def asked(gateway: RunningGateway, token: str, body: Any) -> Answer:
    return gateway.ask("POST", "/v1/messages/count_tokens?beta=true", body, token=token)


@pytest.mark.parametrize("kind", COUNTED)
def test_a_count_is_the_servers_own_and_says_so(gateway: RunningGateway, scripted: Start, kind: str) -> None:
    token = gateway.session(target(scripted(serving("vllm", COUNTED[kind])).url, kind=kind)).token
    answer = asked(gateway, token, context(3))
    assert (answer.status, answer.json) == (200, {"input_tokens": 56})
    assert answer.headers["x-anyclaude-count"] == "measured"


@pytest.mark.parametrize("kind", [*COUNTED, "openai", "mlx-lm"])
def test_an_estimate_is_never_shown_as_measured(gateway: RunningGateway, scripted: Start, kind: str) -> None:
    token = gateway.session(target(scripted(serving("vllm", {})).url, kind=kind)).token
    answer = asked(gateway, token, context(4))
    assert answer.status == 200
    assert answer.headers["x-anyclaude-count"] == "estimated"
    assert 60 <= answer.json["input_tokens"] <= 140  # 287 characters


@pytest.mark.parametrize("kind", COUNTED)
def test_a_server_that_is_down_is_no_error_for_a_count(gateway: RunningGateway, scripted: Start, kind: str) -> None:
    backend = scripted(serving("vllm", COUNTED[kind]))
    token = gateway.session(target(backend.url, kind=kind)).token
    assert asked(gateway, token, context(1)).headers["x-anyclaude-count"] == "measured"
    backend.close()
    answer = asked(gateway, token, context(2))
    assert (answer.status, answer.headers["x-anyclaude-count"]) == (200, "estimated")


@pytest.mark.parametrize("kind", COUNTED)
def test_thirty_counts_at_once_cost_one_request_each_and_nothing_the_second_time(
    gateway: RunningGateway, scripted: Start, kind: str
) -> None:
    backend = scripted(serving("vllm", COUNTED[kind]))
    token = gateway.session(target(backend.url, kind=kind)).token

    def ask(n: int) -> Answer:
        return asked(gateway, token, context(n))

    with ThreadPoolExecutor(30) as pool:
        for _ in range(2):
            answers = list(pool.map(ask, range(30)))
            assert [answer.json for answer in answers] == [{"input_tokens": 56}] * 30
    assert len([path for path in paths(backend) if path != RENDER]) == 30
    assert paths(backend).count(RENDER) == (1 if kind == "llamacpp" else 0)


def test_a_count_has_the_messages_and_tools_of_the_turn_that_it_is_for(
    gateway: RunningGateway, scripted: Start
) -> None:
    counting = serving("llamacpp", llama_server())

    def script(exchange: Exchange) -> None:
        if exchange.path == "/v1/chat/completions":
            exchange.answer(chat.text("ok"))
        else:
            counting(exchange)

    backend = scripted(script)
    token = gateway.session(target(backend.url, kind="llamacpp")).token
    body = request(system="Answer briefly.", thinking={"type": "disabled"}, tools=context(3)["tools"])
    gateway.ask("POST", "/v1/messages", body, token=token)
    asked(gateway, token, body)
    by_path = {exchange.path: exchange.body for exchange in backend.turns}
    turn, count = by_path["/v1/chat/completions"], by_path[IN_ONE]
    assert count == turn


def test_estimates_are_corrected_by_what_turns_measured(gateway: RunningGateway, scripted: Start) -> None:
    """1,000 tokens, says the scripted server."""
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url)).token
    body = request("a prompt of so many words " * 100)
    before = asked(gateway, token, body).json["input_tokens"]
    assert gateway.ask("POST", "/v1/messages", body, token=token).text == "ok"
    wait_until(lambda: gateway.gateway.ledger.recent, "the turn is recorded")
    after = asked(gateway, token, body).json["input_tokens"]
    assert abs(after - 1000) < 20 < abs(before - 1000)


def test_a_turn_that_failed_corrects_nothing(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(lambda exchange: exchange.json(500, {"error": {"message": "out of memory"}}))
    token = gateway.session(target(backend.url)).token
    body = request("a prompt of so many words " * 100)
    before = asked(gateway, token, body).json
    gateway.ask("POST", "/v1/messages", body, token=token)
    wait_until(lambda: gateway.gateway.ledger.recent, "the turn is recorded")
    assert asked(gateway, token, body).json == before


def test_a_private_turn_corrects_no_estimate_that_others_see_or_that_is_written_down(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    token = gateway.session(target(backend.url), is_private=True).token
    body = request("a prompt of so many words " * 100)
    before = asked(gateway, token, body).json
    assert gateway.ask("POST", "/v1/messages", body, token=token).text == "ok"
    wait_until(lambda: gateway.gateway.ledger.recent, "the turn is recorded")
    assert asked(gateway, token, body).json == before
    assert gateway.gateway.ledger.read("SELECT * FROM calibration") == []


def test_after_a_few_turns_of_the_real_server_the_next_ones_estimate_is_within_two_per_cent(
    gateway: RunningGateway, mlx: str
) -> None:
    token = gateway.session(target(mlx, kind="mlx-lm")).token
    texts = [stream.decode() for stream in STREAMS.values()]
    body = request(
        system=(TRANSCRIPTS / "vllm" / "SOURCE.md").read_text("utf-8"),
        tools=[context(n)["tools"][0] for n in (11, 17)],
        max_tokens=2,
    )
    off: list[float] = []
    for n, text in enumerate(texts[:9]):
        estimate = asked(gateway, token, body).json["input_tokens"]
        usage = gateway.ask("POST", "/v1/messages", body, token=token).events[-2]["usage"]
        wait_until(lambda n=n: len(gateway.gateway.ledger.recent) > n, "the turn is recorded")
        off.append(abs(estimate / (usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)) - 1))
        call = {"type": "tool_use", "id": f"toolu_{n}", "name": "Tool11", "input": {"path": text[:150]}}
        result = {"type": "tool_result", "tool_use_id": f"toolu_{n}", "content": text[:1500]}
        turns = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        body = body | {"messages": [*body["messages"], *turns]}
    assert max(off[4:]) < 0.02
