"""A model server that counts, and the requests that it is asked to count."""

import json
from collections.abc import Callable
from typing import Any

from anyclaude.backends.chat import ChatBackend
from anyclaude.backends.http import Clients
from anyclaude.backends.knowledge import Knowledge
from anyclaude.backends.seam import Count, Target, Turn
from anyclaude.routing.choose import prompt_for, sections_for
from anyclaude.wire.messages import decode_request
from tests.recorded import TRANSCRIPTS
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import target

IN_ONE, RENDER, TOKENIZE = "/v1/chat/completions/input_tokens", "/apply-template", "/tokenize"
Route = Callable[[Any], Any]
Routes = dict[str, Route]


def always(answer: Any) -> Route:
    return lambda body: answer


def in_order(*answers: Any) -> Route:
    waiting = iter(answers)
    return lambda body: next(waiting)


def recorded(kind: str, path: str) -> Any:
    """What such a server answers there, by its transcript."""
    return json.loads((TRANSCRIPTS / kind / "count.json").read_text("utf-8"))[f"POST {path}"]["body"]


def serving(kind: str, routes: Routes) -> Script:
    """Only these; what a route gives is the answer's body, or status and body."""

    def script(exchange: Exchange) -> None:
        if exchange.path not in routes:
            exchange.json(404, recorded(kind, "/unknown"))
            return
        answer = routes[exchange.path](exchange.body)
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        exchange.json(status, body)

    return script


def llama_server(*, is_older: bool = False) -> Routes:
    """Its rendering writes down all that it gets."""
    older: Routes = {
        RENDER: lambda body: {"prompt": _everything(body)},
        TOKENIZE: always(recorded("llamacpp", TOKENIZE)),
    }
    return older if is_older else older | {IN_ONE: always({"input_tokens": 56})}


def _everything(body: Any) -> str:
    words = [(message["content"], message.get("reasoning_content", "")) for message in body["messages"]]
    calls = [message["tool_calls"] for message in body["messages"] if "tool_calls" in message]
    return f"<s>{words}{json.dumps(calls)}{json.dumps(body.get('tools', []))}"


def paths(backend: ScriptedBackend) -> list[str]:
    return [exchange.path for exchange in backend.turns]


def turn(words: str = "How many files?", *, to: Target, **fields: Any) -> Turn:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": words}]} | fields).encode()
    request = decode_request(body, needs_max_tokens=False)
    prompt = prompt_for(to, request, None)
    sections = sections_for(to, prompt)
    return Turn(request=request, prompt=prompt, sections=sections, body=body, model="scripted", message_id="msg_1")


class Counting:
    """Counts as the gateway does, with all that it remembers between requests."""

    def __init__(self, url: str, kind: str, **fields: Any) -> None:
        self.target = target(url, kind=kind, **fields)
        self.knowledge = Knowledge()
        self._clients = Clients()

    async def of(self, words: str = "How many files?", **fields: Any) -> Count:
        backend = ChatBackend(self.target, self._clients, self.knowledge)
        return await backend.count(turn(words, to=self.target, **fields))
