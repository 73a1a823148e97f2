"""What the gateway learns from one request for the next: the tools at the head of each conversation, and what a model's
template refuses. Seen from the model server: what it is sent."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyclaude.prompt.own import own_signature
from anyclaude.telemetry.ledger import Ledger
from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import RunningGateway, request, running_gateway, target
from tests.support.script import tool_names

Start = Callable[[Script], ScriptedBackend]
JOINED = "A tool joined and can be called from now on:"


def tool(name: str, description: str = "") -> dict[str, Any]:
    return {"name": name, "description": description or f"does {name}", "input_schema": {"type": "object"}}


def ok(exchange: Exchange) -> None:
    exchange.answer(chat.text("ok"))


class Client:
    """One conversation of Claude Code's, with the headers that it sends."""

    def __init__(
        self,
        gateway: RunningGateway,
        backend: ScriptedBackend,
        *tools: str,
        session: str = "s1",
        agent: str = "",
        entrypoint: str = "cli",
        project: str = "/project",
        is_private: bool = False,
    ) -> None:
        self.tools = [tool(name) for name in tools]
        self.messages: list[dict[str, Any]] = []
        self._gateway = gateway
        self._backend = backend
        launched = gateway.session(target(backend.url, kind="mlx-lm"), project=project, is_private=is_private)
        self._headers = {
            "token": launched.token,
            "x_claude_code_session_id": session,
            "user_agent": f"claude-cli/2.1.330 (external, {entrypoint})",
        } | ({"x_claude_code_agent_id": agent} if agent else {})

    def say(self, words: str = "go on", *, request_class: str | None = "main", **fields: Any) -> dict[str, Any]:
        """One turn more. What the model server was sent for it."""
        self.messages.append({"role": "user", "content": words})
        sent = self.ask(request_class=request_class, **fields)
        self.messages.append({"role": "assistant", "content": "ok"})
        return sent

    def ask(self, *, request_class: str | None = "main", **fields: Any) -> dict[str, Any]:
        """A request beside the conversation, unless `say` makes it."""
        headers = self._headers | ({"x_claude_code_request_class": request_class} if request_class else {})
        body = request(messages=self.messages, tools=self.tools) | fields
        answer = self._gateway.ask("POST", "/v1/messages", body, **headers)
        assert (answer.status, answer.text) == (200, "ok")
        return self._backend.turns[-1].body

    def count(self, **fields: Any) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | fields
        assert self._gateway.ask("POST", "/v1/messages/count_tokens", body, **self._headers).status == 200


def announcements(sent: dict[str, Any]) -> list[tuple[int, str]]:
    """In which message which tools are announced."""
    return [
        (n, name)
        for n, message in enumerate(sent["messages"])
        for name in ("Aaa", "Mcp")
        if JOINED in message["content"] and f'"name":"{name}"' in message["content"]
    ]


def test_a_tool_that_joins_leaves_the_head_as_it_is_and_is_announced_in_every_later_turn(
    gateway: RunningGateway, scripted: Start
) -> None:
    client = Client(gateway, scripted(ok), "Bash", "Read")
    sent = [client.say("one")]
    client.tools.insert(0, tool("Aaa"))
    sent += [client.say("two"), client.say("three")]
    client.tools.insert(2, tool("Mcp"))
    sent += [client.say("four"), client.say("five")]

    assert [tool_names(each) for each in sent] == [["Bash", "Read"]] * 5
    assert [announcements(each) for each in sent] == [[], [(2, "Aaa")], [(2, "Aaa")]] + [[(2, "Aaa"), (6, "Mcp")]] * 2
    for earlier, later in itertools.pairwise(sent):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]


@pytest.mark.parametrize("changed", [[tool("Bash", "does it otherwise"), tool("Read")], [tool("Read")]])
def test_a_changed_or_removed_tool_starts_a_new_head(
    gateway: RunningGateway, scripted: Start, changed: list[dict[str, Any]]
) -> None:
    client = Client(gateway, scripted(ok), "Bash", "Read")
    client.say("one")
    client.tools.append(tool("Aaa"))
    client.say("two")
    client.tools = [tool("Aaa"), *changed]
    sent = client.say("three")

    assert tool_names(sent) == sorted(each["name"] for each in client.tools)
    assert announcements(sent) == []


def test_side_requests_with_the_sessions_id_teach_nothing(gateway: RunningGateway, scripted: Start) -> None:
    """Had one taught, the main conversation would begin anew, or take a tool for a newcomer."""
    client = Client(gateway, scripted(ok), "Bash", "Read")
    client.say("one")
    words: dict[str, Any] = {"messages": [{"role": "user", "content": "a title for this"}]}
    client.count(tools=[tool("Bash")])
    client.count(tools=[tool("Bash"), tool("Aaa")], messages=client.messages)
    client.ask(**words, tools=[], request_class="auxiliary")
    client.ask(**words, tools=[])
    client.ask(tools=[tool("Aaa"), tool("Bash"), tool("Read")], request_class="auxiliary")
    client.ask(tools=[tool("Bash")], request_class="workflow")
    sent = client.say("two")

    assert tool_names(sent) == ["Bash", "Read"]
    assert announcements(sent) == []
    client.tools.append(tool("Aaa"))
    assert announcements(client.say("three")) == [(4, "Aaa")]


def test_a_client_that_names_no_class_teaches_too(gateway: RunningGateway, scripted: Start) -> None:
    """Versions without the header, and programs that use the gateway directly."""
    client = Client(gateway, scripted(ok), "Bash")
    client.say("one", request_class=None)
    client.tools.append(tool("Aaa"))

    assert announcements(client.say("two", request_class=None)) == [(2, "Aaa")]


def test_a_sub_agent_has_a_head_of_its_own(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(ok)
    main = Client(gateway, backend, "Agent", "Bash", "Read")
    agents = [Client(gateway, backend, "Bash", agent=name) for name in ("a1", "a2")]
    main.say("one")
    for agent in agents:
        assert tool_names(agent.say("look", request_class="subagent")) == ["Bash"]
    agents[0].tools.append(tool("Aaa"))

    assert announcements(agents[0].say(request_class="subagent")) == [(2, "Aaa")]
    assert announcements(agents[1].say(request_class="subagent")) == []
    agents[1].tools.append(tool("Aaa"))
    assert announcements(agents[1].say(request_class="subagent")) == [(4, "Aaa")]
    assert tool_names(main.say("two")) == ["Agent", "Bash", "Read"]
    assert announcements(agents[0].say(request_class="subagent")) == [(2, "Aaa")]


def test_another_entry_point_has_a_head_of_its_own(gateway: RunningGateway, scripted: Start) -> None:
    """`-p`, then `--continue` in the terminal: the same session, and one tool more."""
    backend = scripted(ok)
    printed = Client(gateway, backend, "Bash", entrypoint="sdk-cli")
    printed.say("one")
    terminal = Client(gateway, backend, "Aaa", "Bash", entrypoint="cli")
    terminal.messages = list(printed.messages)

    assert tool_names(sent := terminal.say("two")) == ["Aaa", "Bash"]
    assert announcements(sent) == []
    printed.tools.append(tool("Aaa"))
    assert announcements(printed.say("three")) == [(2, "Aaa")]


def test_the_head_survives_a_restart_of_the_server(tmp_path: Path, scripted: Start) -> None:
    backend, ledger = scripted(ok), tmp_path / "ledger.sqlite3"
    with running_gateway(Ledger(ledger)) as gateway:
        client = Client(gateway, backend, "Bash", "Read")
        client.say("one")
        client.tools.insert(0, tool("Aaa"))
        before = client.say("two")
        messages, tools = client.messages, client.tools
    with running_gateway(Ledger(ledger)) as gateway:
        client = Client(gateway, backend)
        client.messages, client.tools = messages, tools
        after = client.say("three")

    assert tool_names(after) == tool_names(before) == ["Bash", "Read"]
    assert after["messages"][: len(before["messages"])] == before["messages"]
    assert announcements(after) == [(2, "Aaa")]


def test_a_private_launch_leaves_no_head_behind(tmp_path: Path, scripted: Start) -> None:
    backend, ledger = scripted(ok), tmp_path / "ledger.sqlite3"
    with running_gateway(Ledger(ledger)) as gateway:
        client = Client(gateway, backend, "Bash", is_private=True)
        client.say("one")
        client.tools.insert(0, tool("Aaa"))
        assert announcements(client.say("two")) == [(2, "Aaa")]
    with running_gateway(Ledger(ledger)) as gateway:
        assert gateway.gateway.ledger.read("SELECT * FROM head") == []


def test_a_private_conversation_that_goes_on_in_public_is_remembered_from_then_on(
    tmp_path: Path, scripted: Start
) -> None:
    backend, ledger = scripted(ok), tmp_path / "ledger.sqlite3"
    with running_gateway(Ledger(ledger)) as gateway:
        private = Client(gateway, backend, "Bash", is_private=True)
        private.say("one")
        private.tools.insert(0, tool("Aaa"))
        private.say("two")
        before = _forked(private, Client(gateway, backend))
    with running_gateway(Ledger(ledger)) as gateway:
        after = _forked(private, Client(gateway, backend))
    assert announcements(after) == announcements(before) == [(2, "Aaa")]


def _begun(gateway: RunningGateway, backend: ScriptedBackend) -> Client:
    client = Client(gateway, backend, "Bash", "Read")
    client.say("one")
    client.tools.insert(0, tool("Aaa"))
    client.say("two")
    return client


def _forked(original: Client, into: Client) -> dict[str, Any]:
    into.messages, into.tools = list(original.messages), list(original.tools)
    return into.say("another way")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_fork_goes_on_with_the_head_of_its_original(tmp_path: Path, scripted: Start, *, is_restarted: bool) -> None:
    """Another session's id, the same history."""
    backend, ledger = scripted(ok), tmp_path / "ledger.sqlite3"
    with running_gateway(Ledger(ledger)) as gateway:
        original = _begun(gateway, backend)
        sent = _forked(original, Client(gateway, backend, session="s2"))
    if is_restarted:
        with running_gateway(Ledger(ledger)) as gateway:
            sent = _forked(original, Client(gateway, backend, session="s3"))

    assert tool_names(sent) == ["Bash", "Read"]
    assert announcements(sent) == [(2, "Aaa")]


def test_another_project_is_no_fork(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(ok)
    sent = _forked(_begun(gateway, backend), Client(gateway, backend, session="s2", project="/other"))

    assert tool_names(sent) == ["Aaa", "Bash", "Read"]
    assert announcements(sent) == []


def test_another_session_with_the_same_first_words_begins_with_all_its_tools(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(ok)
    first = Client(gateway, backend, "Bash")
    first.say("hello")
    first.tools.append(tool("Aaa"))
    first.say("two")

    assert tool_names(Client(gateway, backend, "Bash", "Aaa", session="s2").say("hello")) == ["Aaa", "Bash"]


def test_after_compaction_the_head_stays_and_what_joined_is_still_announced(
    gateway: RunningGateway, scripted: Start
) -> None:
    client = Client(gateway, scripted(ok), "Bash", "Read")
    for words in ("one", "two"):
        client.say(words)
    client.tools.insert(0, tool("Aaa"))
    client.say("three")
    client.ask(request_class="compaction", messages=[*client.messages, {"role": "user", "content": "summarise"}])
    client.messages = [
        {"role": "user", "content": "what was said so far"},
        {"role": "system", "content": "environment"},
    ]
    sent = [client.ask()]
    client.messages.append({"role": "assistant", "content": "ok"})
    sent.append(client.say("four"))

    assert [tool_names(each) for each in sent] == [["Bash", "Read"]] * 2
    assert [len(announcements(each)) for each in sent] == [1, 1]
    assert sent[1]["messages"][: len(sent[0]["messages"])] == sent[0]["messages"]


def test_the_order_in_which_the_client_lists_its_tools_reaches_nobody(gateway: RunningGateway, scripted: Start) -> None:
    client = Client(gateway, scripted(ok), "Read", "Bash")
    first = client.say("one")
    client.tools.reverse()

    assert first["tools"] == client.say("two")["tools"]


def test_what_anyclaude_itself_said_reaches_no_backend(gateway: RunningGateway, scripted: Start) -> None:
    own, theirs = "read 5 of 9 tokens", "what the model thought"
    thoughts = [
        {"type": "thinking", "thinking": own, "signature": own_signature(own)},
        {"type": "thinking", "thinking": theirs, "signature": "s"},
    ]
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [*thoughts, {"type": "text", "text": "two"}]},
        {"role": "user", "content": "three"},
        {"role": "assistant", "content": thoughts[:1]},
        {"role": "user", "content": "four"},
    ]

    def native(exchange: Exchange) -> None:
        exchange.start()
        exchange.send(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')

    for kind, script in (("mlx-lm", ok), ("anthropic", native)):
        backend = scripted(script)
        token = gateway.session(target(backend.url, kind=kind)).token
        assert gateway.ask("POST", "/v1/messages", request(messages=messages), token=token).status == 200
        body = backend.turns[0].body
        assert own not in str(body)
        assert theirs in str(body)
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user", "user"]
    assert body["messages"][1]["content"] == messages[1]["content"][1:]


# What a model's template refuses


def refuses(words: str, holds: Callable[[dict[str, Any]], bool], *, status: int = 500) -> Script:
    """A server that renders by a template: it answers what that can take, and refuses in its words what not."""

    def script(exchange: Exchange) -> None:
        if holds(exchange.body):
            ok(exchange)
        else:
            exchange.json(status, {"error": {"message": f"Jinja Exception: {words} in line 7"}})

    return script


def _alternates(body: dict[str, Any]) -> bool:
    """As Mistral's templates look: results, and turns that only call, are not counted."""
    turns = [message for message in body["messages"] if message["role"] != "system"]
    roles = [message["role"] for message in turns if message["role"] != "tool" and not message.get("tool_calls")]
    return roles == [("user", "assistant")[n % 2] for n in range(len(roles))]


def _has_no_system(body: dict[str, Any]) -> bool:
    return all(message["role"] != "system" for message in body["messages"])


def _has_single_calls(body: dict[str, Any]) -> bool:
    return all(len(message.get("tool_calls", [])) < 2 for message in body["messages"])


def _has_nine_character_ids(body: dict[str, Any]) -> bool:
    ids = [call["id"] for message in body["messages"] for call in message.get("tool_calls", [])]
    ids += [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]
    return all(len(each) == 9 and each.isalnum() for each in ids)


REFUSALS = {
    "After the optional system message, conversation roles must alternate user/assistant/...": _alternates,
    "Conversation roles must alternate user/assistant/user/assistant/...": _alternates,
    "System role not supported": _has_no_system,
    "This model only supports single tool-calls at once!": _has_single_calls,
    "Tool call IDs should be alphanumeric strings with length 9!": _has_nine_character_ids,
}


def _use(call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "Bash", "input": {"command": f"echo {call_id}"}}


def _result(call_id: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": f"result of {call_id}"}


_PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAABBBB"}}
HARD: dict[str, Any] = {
    "system": "You are",
    "tools": [tool("Bash")],
    "messages": [
        {"role": "user", "content": "hi"},
        {"role": "user", "content": "do it"},
        {"role": "assistant", "content": [{"type": "text", "text": "Two."}, _use("toolu_1"), _use("toolu_2")]},
        {
            "role": "user",
            "content": [_result("toolu_1"), _result("toolu_2"), _PICTURE, {"type": "text", "text": "well?"}],
        },
    ],
}
SAID = ("You are", "hi", "do it", "Two.", "result of toolu_1", "result of toolu_2", "well?", "echo toolu_2")


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("words", REFUSALS)
def test_what_a_template_refuses_is_asked_once_more_and_right_at_once_the_next_time(
    gateway: RunningGateway, scripted: Start, words: str, status: int
) -> None:
    backend = scripted(refuses(words, REFUSALS[words], status=status))
    token = gateway.session(target(backend.url)).token
    for n_asked in (2, 3):
        assert gateway.ask("POST", "/v1/messages", request(**HARD), token=token).text == "ok"
        assert len(backend.turns) == n_asked
    other = gateway.session(target(backend.url)).token
    assert gateway.ask("POST", "/v1/messages", request(**HARD), token=other).text == "ok"
    assert len(backend.turns) == 4
    assert all(said in backend.turns[-1].raw.decode() for said in SAID)


def test_a_template_that_refuses_everything_is_fitted_rule_by_rule(gateway: RunningGateway, scripted: Start) -> None:
    def script(exchange: Exchange) -> None:
        refused = [words for words, holds in REFUSALS.items() if not holds(exchange.body)]
        if refused:
            exchange.json(500, {"error": {"message": refused[0]}})
        else:
            ok(exchange)

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    for n_asked in (5, 6):
        assert gateway.ask("POST", "/v1/messages", request(**HARD), token=token).text == "ok"
        assert len(backend.turns) == n_asked
    assert all(said in backend.turns[-1].raw.decode() for said in SAID)


def test_one_model_teaches_nothing_about_another(gateway: RunningGateway, scripted: Start) -> None:
    backend = scripted(refuses("System role not supported", _has_no_system))
    token = gateway.session(target(backend.url, models=("scripted", "other"))).token
    for model in ("scripted", "other"):
        gateway.ask("POST", "/v1/messages", request(**HARD, model=model), token=token)

    assert [turn.body["model"] for turn in backend.turns] == ["scripted", "scripted", "other", "other"]


def test_a_refusal_that_fitting_does_not_help_is_told_after_one_more_try(
    gateway: RunningGateway, scripted: Start
) -> None:
    backend = scripted(refuses("System role not supported", lambda _: False))
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", request(**HARD), token=token)

    assert (answer.status, len(backend.turns)) == (502, 2)
    assert "System role not supported" in answer.json["error"]["message"]


@pytest.mark.parametrize(("server_id", "comes_back"), [("AbCdEf123", True), ("call_0123456789", False)])
def test_the_model_reads_its_own_call_id_again_where_it_has_nine_characters(
    gateway: RunningGateway, scripted: Start, server_id: str, *, comes_back: bool
) -> None:
    """The client gets ids that are unique in the conversation: servers repeat theirs."""

    def script(exchange: Exchange) -> None:
        if _has_nine_character_ids(exchange.body):
            exchange.answer(chat.call("Bash", {"command": "ls"}, call_id=server_id))
        else:
            exchange.json(500, {"error": {"message": "Tool call IDs should be alphanumeric strings with length 9!"}})

    backend = scripted(script)
    token = gateway.session(target(backend.url)).token
    messages: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
    ids: list[str] = []
    for _ in range(3):
        answer = gateway.ask("POST", "/v1/messages", request(messages=messages, stream=False), token=token).json
        (call,) = answer["content"]
        ids.append(call["id"])
        messages += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [_result(call["id"])]}]

    sent = [message for message in backend.turns[-1].body["messages"] if message["role"] != "user"]
    written = [message.get("tool_call_id") or message["tool_calls"][0]["id"] for message in sent]
    assert len(set(ids)) == 3
    assert all(each.startswith("toolu_") for each in ids)
    assert written[::2] == written[1::2]
    assert (written == [server_id] * 4) == comes_back
