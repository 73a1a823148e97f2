"""Other programs that speak the Messages API: the vendor's own SDKs, unchanged, against the gateway."""

import asyncio
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import anthropic
import pytest
from claude_agent_sdk import AssistantMessage, ClaudeAgentOptions, Message, ResultMessage, TextBlock, query

from tests.client.conftest import Scripted
from tests.support import chat
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.gateway import RunningGateway, target
from tests.support.home import Home
from tests.support.script import in_order, results, words_of_person

LIMIT_S = 60.0
QUESTION: anthropic.types.MessageParam = {"role": "user", "content": "a question"}
WEATHER: anthropic.types.ToolParam = {
    "name": "weather",
    "description": "The weather of a place",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}

Connect = Callable[[ScriptedBackend], anthropic.Anthropic]


@pytest.fixture
def connect(gateway: RunningGateway) -> Generator[Connect]:
    """The SDK's client on a session of its own."""
    made: list[anthropic.Anthropic] = []

    def start(backend: ScriptedBackend) -> anthropic.Anthropic:
        token = gateway.session(target(backend.url, models=("scripted", "other"))).token
        made.append(_client(gateway, token))
        return made[-1]

    yield start
    for client in made:
        client.close()


def _client(gateway: RunningGateway, token: str) -> anthropic.Anthropic:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    return anthropic.Anthropic(
        base_url=gateway.url, auth_token=token, api_key=None, max_retries=0, timeout=LIMIT_S, http_client=http
    )


def _asynchronous_client(gateway: RunningGateway, token: str) -> anthropic.AsyncAnthropic:
    http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
    return anthropic.AsyncAnthropic(
        base_url=gateway.url, auth_token=token, api_key=None, max_retries=0, timeout=LIMIT_S, http_client=http
    )


def test_a_whole_message_has_the_words_the_name_that_was_asked_for_and_the_measured_tokens(
    connect: Connect, scripted: Scripted
) -> None:
    message = connect(scripted(in_order(chat.text("a whole answer", cached=900)))).messages.create(
        model="asked-for", max_tokens=100, messages=[QUESTION]
    )
    (block,) = message.content
    assert isinstance(block, anthropic.types.TextBlock)
    assert block.text == "a whole answer"
    assert (message.model, message.role, message.stop_reason) == ("asked-for", "assistant", "end_turn")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (100, 900)
    assert message.id.startswith("msg_")


def test_a_streamed_message_arrives_in_pieces_and_is_put_together(connect: Connect, scripted: Scripted) -> None:
    words = "a streamed answer 🎉 of several pieces"
    client = connect(scripted(in_order(chat.text(words))))
    with client.messages.stream(model="m", max_tokens=100, messages=[QUESTION]) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == words
    assert stream.get_final_text() == words
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 5)


def test_the_asynchronous_client_streams_as_well(gateway: RunningGateway, scripted: Scripted) -> None:
    async def ask() -> tuple[str, str | None]:
        async with (
            _asynchronous_client(gateway, token) as client,
            client.messages.stream(model="m", max_tokens=100, messages=[QUESTION]) as stream,
        ):
            pieces = [piece async for piece in stream.text_stream]
            return "".join(pieces), (await stream.get_final_message()).stop_reason

    token = gateway.session(target(scripted(in_order(chat.text("an answer in time"))).url)).token
    assert asyncio.run(ask()) == ("an answer in time", "end_turn")


def test_twenty_questions_at_once_get_each_their_own_answer(gateway: RunningGateway, scripted: Scripted) -> None:
    async def ask() -> list[str]:
        async with _asynchronous_client(gateway, token) as client:
            numbers = (str(number) for number in range(20))
            return await asyncio.gather(*(_words(client, number) for number in numbers))

    async def _words(client: anthropic.AsyncAnthropic, question: str) -> str:
        message = await client.messages.create(
            model="m", max_tokens=100, messages=[{"role": "user", "content": question}]
        )
        return "".join(block.text for block in message.content if block.type == "text")

    def script(exchange: Exchange) -> None:
        exchange.answer(chat.text(f"answer to {words_of_person(exchange.body)}"))

    token = gateway.session(target(scripted(script).url)).token
    assert asyncio.run(ask()) == [f"answer to {number}" for number in range(20)]


def test_a_tool_is_called_and_its_result_is_sent_back(connect: Connect, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.call("weather", {"place": "Zürich"}), chat.text("it rains")))
    client = connect(backend)
    with client.messages.stream(model="m", max_tokens=100, messages=[QUESTION], tools=[WEATHER]) as stream:
        asked = stream.get_final_message()
    (use,) = [block for block in asked.content if block.type == "tool_use"]
    assert (asked.stop_reason, use.name, use.input) == ("tool_use", "weather", {"place": "Zürich"})
    answered: list[anthropic.types.MessageParam] = [
        QUESTION,
        {"role": "assistant", "content": asked.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"}]},
    ]
    done = client.messages.create(model="m", max_tokens=100, messages=answered, tools=[WEATHER])
    assert [block.text for block in done.content if block.type == "text"] == ["it rains"]
    body = backend.turns[1].body
    assert body["messages"][1]["tool_calls"][0]["id"] == use.id
    assert results(body) == [{"role": "tool", "tool_call_id": use.id, "content": "rain"}]
    assert body["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]


def test_a_tool_that_is_demanded_is_demanded_of_the_server(connect: Connect, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.call("weather", {"place": "x"})))
    choice: anthropic.types.ToolChoiceToolParam = {"type": "tool", "name": "weather"}
    connect(backend).messages.create(
        model="m", max_tokens=100, messages=[QUESTION], tools=[WEATHER], tool_choice=choice
    )
    assert backend.turns[0].body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}


def test_thoughts_are_a_block_of_their_own(connect: Connect, scripted: Scripted) -> None:
    client = connect(scripted(in_order([chat.delta(reasoning_content="hm"), *chat.text("yes")])))
    message = client.messages.create(model="m", max_tokens=100, messages=[QUESTION])
    assert [block.type for block in message.content] == ["thinking", "text"]


def test_tokens_are_counted_and_a_longer_prompt_has_more(connect: Connect, scripted: Scripted) -> None:
    client = connect(scripted(in_order()))
    counts = [
        client.messages.count_tokens(model="m", messages=[{"role": "user", "content": "word " * n}]).input_tokens
        for n in (10, 1000)
    ]
    assert 0 < counts[0] < 100
    assert 1000 < counts[1] < 2000


def test_the_models_are_those_of_the_session(connect: Connect, scripted: Scripted) -> None:
    client = connect(scripted(in_order()))
    assert [model.id for model in client.models.list()] == ["scripted", "other"]
    assert client.models.retrieve("other").display_name == "other"
    with pytest.raises(anthropic.NotFoundError, match="claude-opus"):
        client.models.retrieve("claude-opus")


def test_a_wrong_token_is_an_authentication_error(gateway: RunningGateway) -> None:
    with _client(gateway, "not-a-token") as client, pytest.raises(anthropic.AuthenticationError) as caught:
        client.messages.create(model="m", max_tokens=100, messages=[QUESTION])
    assert caught.value.request_id
    assert "start anyclaude again" in caught.value.message


def test_an_impossible_value_is_a_bad_request_that_names_the_field(connect: Connect, scripted: Scripted) -> None:
    backend = scripted(in_order())
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        connect(backend).messages.create(model="m", max_tokens=0, messages=[QUESTION])
    assert backend.turns == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, anthropic.PermissionDeniedError),
        (404, anthropic.BadRequestError),  # it does not speak of a model
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (503, anthropic.InternalServerError),
    ],
)
def test_a_servers_refusal_is_the_sdks_own_error(
    connect: Connect, scripted: Scripted, status: int, error: type[anthropic.APIStatusError]
) -> None:
    client = connect(scripted(lambda exchange: exchange.json(status, {"error": {"message": "words of the server"}})))
    with pytest.raises(error, match="words of the server"):
        client.messages.create(model="m", max_tokens=100, messages=[QUESTION])


def test_an_answer_that_breaks_off_is_an_error_and_not_a_short_answer(connect: Connect, scripted: Scripted) -> None:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks([chat.delta(content="half")])

    client = connect(scripted(script))
    asked = client.messages.stream(model="m", max_tokens=100, messages=[QUESTION])
    with pytest.raises(anthropic.APIError, match="broke off"), asked as stream:
        stream.get_final_message()


@pytest.fixture
def exported(home: Home) -> Generator[Callable[[ScriptedBackend], dict[str, str]]]:
    """The settings that `anyclaude --no-launch` prints for other programs; it serves them until the test ends."""
    started: list[subprocess.Popen[str]] = []

    def start(backend: ScriptedBackend) -> dict[str, str]:
        process = home.start("--no-launch", "--mode", "openai", "--base-url", backend.url)
        started.append(process)
        assert process.stdout is not None
        assert process.stderr is not None
        said = ""
        while "until this command ends" not in said:
            line = process.stderr.readline()
            assert line, f"it ended early: {said}"
            said += line
        lines = os.read(process.stdout.fileno(), 1 << 16).decode().splitlines()
        words = (shlex.split(line) for line in lines)
        return dict(word.split("=", 1) for command, word in words if command == "export")

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0


def test_the_agent_sdk_runs_its_client_with_the_exported_settings(
    exported: Callable[[ScriptedBackend], dict[str, str]], home: Home, scripted: Scripted
) -> None:
    async def run() -> list[Message]:
        options = ClaudeAgentOptions(
            cli_path=Path(sys.executable).parent / "claude",
            cwd=home.project,
            env=home.environment | settings,
            permission_mode="acceptEdits",
            stderr=lambda _: None,
        )
        return [message async for message in query(prompt="write it", options=options)]

    file = home.project / "by the agent.txt"
    call = chat.call("Write", {"file_path": str(file), "content": "written\n"})
    backend = scripted(in_order(call, chat.text("it is written")))
    settings = exported(backend)
    assert settings["ANTHROPIC_MODEL"] == "scripted"
    messages = asyncio.run(run())
    assert file.read_text() == "written\n"
    said = [
        block.text
        for message in messages
        if isinstance(message, AssistantMessage)
        for block in message.content
        if isinstance(block, TextBlock)
    ]
    assert said == ["it is written"]
    (result,) = [message for message in messages if isinstance(message, ResultMessage)]
    assert (result.subtype, result.is_error, result.num_turns) == ("success", False, 2)
    assert words_of_person(backend.turns[0].body) == "write it"
    (server,) = home.status()
    assert [turn["request_class"] for turn in server["turns"]] == ["main", "main"]
