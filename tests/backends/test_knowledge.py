import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from anyclaude.backends.estimate import Calibration
from anyclaude.backends.knowledge import Knowledge, key_of
from anyclaude.backends.seam import Target
from anyclaude.prompt.policy import Policy
from anyclaude.server.calibrations import load_calibrations, save_calibration
from anyclaude.telemetry.ledger import Ledger
from tests.support import chat
from tests.support.backend import LIMIT_S, Exchange, Script, ScriptedBackend
from tests.support.gateway import RunningGateway, request, target

Start = Callable[[Script], ScriptedBackend]
KEY = key_of(Target(kind="vllm", base_url="http://127.0.0.1:8000"), "model")
OTHER = key_of(Target(kind="vllm", base_url="http://127.0.0.1:8001"), "model")


class Part(Struct, frozen=True):
    kind: str
    n_characters: int


PARTS = [Part("tool", 4000), Part("text", 8000)]


@pytest.mark.parametrize(
    ("refusal", "rule"),
    [
        (b"System role not supported", Policy(system="user")),
        (b"system messages are not allowed here", Policy(system="user")),
        (b"Conversation roles must alternate user/assistant/user/assistant/...", Policy(alternates=True)),
        (b"After the optional system message, conversation roles must alternate", Policy(alternates=True)),
        (b"This model only supports single tool-calls at once!", Policy(one_call=True)),
        (b"Tool call IDs should be alphanumeric strings with length 9!", Policy(call_ids="nine")),
    ],
)
def test_a_templates_refusal_teaches_its_rule_once(refusal: bytes, rule: Policy) -> None:
    knowledge = Knowledge()
    assert knowledge.learn_from_refusal(KEY, b'{"error": "Error rendering prompt: ' + refusal + b'"}')
    assert knowledge.policy(KEY, Policy()) == rule
    assert knowledge.policy(OTHER, Policy()) == Policy()
    assert not knowledge.learn_from_refusal(KEY, refusal)


def test_rules_add_up_on_what_the_kind_of_server_decides() -> None:
    knowledge = Knowledge()
    knowledge.learn_from_refusal(KEY, b"System role not supported")
    knowledge.learn_from_refusal(KEY, b"roles must alternate")
    wanted = Policy(late_tools="expand", system="user", alternates=True)
    assert knowledge.policy(KEY, Policy(late_tools="expand")) == wanted


@pytest.mark.parametrize("refusal", [b"", b"context length exceeded", b"\xff\xfe", b"<html>502 Bad Gateway</html>"])
def test_another_refusal_teaches_nothing(refusal: bytes) -> None:
    knowledge = Knowledge()
    assert not knowledge.learn_from_refusal(KEY, refusal)
    assert knowledge.policy(KEY, Policy()) == Policy()


def test_what_a_model_measured_is_not_expected_of_another() -> None:
    knowledge = Knowledge()
    before = knowledge.estimate(KEY, PARTS)
    knowledge.correct(KEY, PARTS, 2 * before)
    assert knowledge.estimate(KEY, PARTS) > 1.9 * before
    assert knowledge.estimate(OTHER, PARTS) == before


def test_what_was_measured_outlives_the_server() -> None:
    ledger, knowledge = Ledger(None), Knowledge()
    save_calibration(ledger, KEY, knowledge.correct(KEY, PARTS, 7000))
    ledger.flush()
    later = Knowledge(load_calibrations(ledger))
    ledger.close()
    assert later.estimate(KEY, PARTS) == knowledge.estimate(KEY, PARTS) > Knowledge().estimate(KEY, PARTS)


@pytest.mark.parametrize("state", [b"", b"{", b'{"weights":[1.0],"covariance":[[1.0]]}'])
def test_what_cannot_be_read_is_learned_anew(state: bytes) -> None:
    ledger = Ledger(None)
    values = (*KEY, state)
    ledger.put(lambda connection: connection.execute("INSERT INTO calibration VALUES (?, ?, ?, ?)", values) and None)
    ledger.flush()
    assert load_calibrations(ledger) == {KEY: Calibration.fresh()}
    ledger.close()


def test_a_calibration_holds_no_text() -> None:
    saved = msgspec.json.decode(msgspec.json.encode(Knowledge().correct(KEY, PARTS, 3000)))
    assert all(isinstance(value, float | int) for value in _leaves(saved, besides="names"))


def _leaves(value: Any, *, besides: str) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from () if name == besides else _leaves(inner, besides=besides)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, besides=besides)
    else:
        yield value


def test_turns_refused_at_the_same_time_all_go_on_with_what_one_of_them_taught(
    gateway: RunningGateway, scripted: Start
) -> None:
    both_there = threading.Barrier(2, timeout=LIMIT_S)

    def script(exchange: Exchange) -> None:
        if any(message["role"] == "system" for message in exchange.body["messages"]):
            both_there.wait()
            exchange.json(500, {"error": {"code": 500, "message": "System role not supported"}})
        else:
            exchange.answer(chat.text("ok"))

    token = gateway.session(target(scripted(script).url, kind="llamacpp")).token
    body = request(system="Answer briefly.")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(gateway.ask, "POST", "/v1/messages", body, token=token) for _ in range(2)]
    assert [turn.result().text for turn in asked] == ["ok", "ok"]
