"""Scripts for the model server: what it answers when the real client goes through a conversation."""

import itertools
import threading
from typing import Any

from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.chat import Chunks

Body = dict[str, Any]
Message = dict[str, Any]


def in_order(*answers: Chunks | Script) -> Script:
    """The first request gets the first answer, and so on. One request too many gets a refusal that ends the client."""

    def script(exchange: Exchange) -> None:
        with lock:
            answer = waiting.pop(0) if waiting else None
        if answer is None:
            exchange.json(401, {"error": {"message": "the script has no answer for this request"}})
        elif isinstance(answer, list):
            exchange.answer(answer)
        else:
            answer(exchange)

    waiting, lock = list(answers), threading.Lock()
    return script


def results(body: Body) -> list[Message]:
    """The tools' results in a request."""
    return [message for message in body["messages"] if message["role"] == "tool"]


def words_of_person(body: Body) -> str:
    """The end of the newest user turn: reminders of the client stand before it."""
    said = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
    return said.rpartition("</system-reminder>")[2].strip()


def tool_names(body: Body) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", [])]


def assert_each_extends_the_one_before(backend: ScriptedBackend) -> None:
    """What makes a prefix cache work: nothing that was sent is sent differently later."""
    bodies = [exchange.body for exchange in backend.turns]
    assert len(bodies) > 1
    for earlier, later in itertools.pairwise(bodies):
        n_sent = len(earlier["messages"])
        assert later["messages"][:n_sent] == earlier["messages"]
        assert len(later["messages"]) > n_sent
        assert later["tools"] == earlier["tools"]
