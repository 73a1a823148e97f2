"""Which server and model a launch uses, on servers that answer as the transcripts tell."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.discovery import Found, Model
from anyclaude.config.secret import Secret
from anyclaude.config.settings import Settings
from anyclaude.errors import AnyclaudeError, NoBackend, SettingError
from anyclaude.launch.choice import ASSUMED_WINDOW, Choice, output_limit
from anyclaude.launch.choose import best_first, choose, goes_straight, key_for
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.transcript import TranscriptServer

NOWHERE = Path("/nowhere")
Start = Callable[[str], TranscriptServer]


def _nothing(exchange: Exchange) -> None:
    exchange.json(200, {})


@pytest.fixture
def transcript() -> Generator[Start]:
    with ExitStack() as stack:

        def start(kind: str) -> TranscriptServer:
            server = TranscriptServer(kind, _nothing)
            stack.enter_context(server)
            return server

        yield start


def chosen(said: list[str] | None = None, **fields: Any) -> Choice:
    sources = {name: f"--{name}" for name in fields}
    say = [].append if said is None else said.append
    return asyncio.run(choose(Settings(**fields, sources=sources), NOWHERE, say))


def refused(**fields: Any) -> str:
    with pytest.raises(AnyclaudeError) as caught:
        chosen(**fields)
    return caught.value.message


@pytest.mark.parametrize(
    ("kind", "model", "window"),
    [
        ("llamacpp", "qwen3-coder-30b-a3b-q4_k_m", 32768),
        ("vllm", "Qwen/Qwen3-Coder-30B-A3B-Instruct", 32768),
        ("lmstudio", "qwen/qwen3-8b", 30000),
    ],
)
def test_a_server_is_told_by_its_answers_and_its_own_window_is_taken(
    transcript: Start, kind: str, model: str, window: int
) -> None:
    url = transcript(kind).url
    by_address, by_mode = chosen(base_url=url), chosen(mode=kind, base_url=url)
    assert by_address.target == by_mode.target
    assert (by_mode.target.kind, by_mode.model, by_mode.window) == (kind, model, window)
    assert by_mode.target.context_window == window
    assert by_mode.target.max_output_tokens == 4096
    assert by_mode.target.takes_images is (None if kind == "vllm" else False)
    assert by_mode.notes[0].startswith(f"{model} on ")


def test_openrouter_wants_a_key_and_a_model_that_it_has(transcript: Start) -> None:
    url = f"{transcript('openrouter').url}/api"
    key = Secret("sk-key")
    assert "needs a key" in refused(mode="openrouter", base_url=url)
    assert "has no model 'nope'" in refused(mode="openrouter", base_url=url, api_key=key, model="nope")
    choice = chosen(mode="openrouter", base_url=url, api_key=key, model="qwen/qwen3-coder:free")
    assert (choice.window, choice.target.api_key) == (262000, "sk-key")


def test_ollama_loads_the_model_and_then_tells_the_window_in_force(transcript: Start) -> None:
    server = transcript("ollama")
    running = server.answers.pop("/api/ps")
    server.answers["/api/ps"] = running | {"body": {"models": []}}

    def load(exchange: Exchange) -> None:
        assert (exchange.path, exchange.body) == ("/api/generate", {"model": "qwen3:8b", "stream": False})
        server.answers["/api/ps"] = running
        exchange.json(200, {"done": True, "done_reason": "load"})

    server.script = load
    said: list[str] = []
    choice = chosen(said, mode="ollama", base_url=server.url)
    assert choice.window == running["body"]["models"][0]["context_length"]
    assert said == ["loading qwen3:8b into Ollama, which tells the context window of loaded models only"]


def test_ollama_is_not_asked_to_load_where_the_person_told_the_window(transcript: Start) -> None:
    server = transcript("ollama")
    server.answers["/api/ps"]["body"] = {"models": []}
    assert chosen(mode="ollama", base_url=server.url, context_window=50_000).window == 50_000
    assert server.turns == []


def test_a_model_of_somebody_elses_cloud_is_used_only_when_it_is_named(transcript: Start) -> None:
    server = transcript("ollama")
    cloud = {"name": "big:480b-cloud", "remote_host": "https://ollama.com", "details": {}}
    embedder = {"name": "nomic-embed-text:latest", "details": {"family": "nomic-bert"}}
    server.answers["/api/ps"]["body"] = {"models": []}
    server.answers["/api/tags"]["body"] = {"models": [cloud, embedder]}
    assert "choose one of the models with --model" in refused(mode="ollama", base_url=server.url)
    assert chosen(mode="ollama", base_url=server.url, model="big:480b-cloud").model == "big:480b-cloud"


def test_a_name_that_is_almost_right_gets_the_right_one_as_an_answer(transcript: Start) -> None:
    url = transcript("lmstudio").url
    assert "Did you mean qwen/qwen3-8b?" in refused(mode="lmstudio", base_url=url, model="qwen3-8b")


def test_a_server_that_is_still_loading_is_used_and_said_so(transcript: Start) -> None:
    server = transcript("llamacpp")
    loading = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}
    server.answers["/v1/models"] |= {"status": 503, "body": loading}
    choice = chosen(base_url=server.url)
    assert "llama-server says: Loading model" in choice.notes
    assert choice.window == ASSUMED_WINDOW


def test_a_server_without_models_asks_for_one() -> None:
    with ScriptedBackend(_nothing) as backend:
        backend.get = lambda exchange: exchange.json(200, {"object": "list", "data": []})  # type: ignore[method-assign]
        assert "has no model. Name one with --model" in refused(mode="openai", base_url=backend.url)
        assert chosen(mode="openai", base_url=backend.url, model="x").model == "x"


def test_several_models_of_which_none_is_loaded_ask_for_a_choice() -> None:
    with ScriptedBackend(_nothing) as backend:
        listing = {"object": "list", "data": [{"id": f"m{n}"} for n in range(30)]}
        backend.get = lambda exchange: exchange.json(200, listing)  # type: ignore[method-assign]
        message = refused(mode="openai", base_url=backend.url)
    assert "--model NAME: m0, m1" in message
    assert "and 10 more" in message


def test_a_server_that_refuses_the_key_is_named() -> None:
    with ScriptedBackend(_nothing) as backend:
        backend.get = lambda exchange: exchange.json(401, {"error": {"message": "no"}})  # type: ignore[method-assign]
        assert "refused the key (HTTP 401)" in refused(mode="vllm", base_url=backend.url)


def test_an_unknown_window_is_assumed_and_said_so() -> None:
    with ScriptedBackend(_nothing, window=None) as backend:
        choice = chosen(mode="openai", base_url=backend.url)
    assert (choice.window, choice.target.context_window) == (ASSUMED_WINDOW, None)
    assert any("assuming 65,536" in note for note in choice.notes)


def test_a_window_too_small_for_the_clients_own_prompt_is_said_so() -> None:
    with ScriptedBackend(_nothing, window=8192) as backend:
        choice = chosen(mode="openai", base_url=backend.url)
    assert any("8,192 tokens is small" in note for note in choice.notes)


def test_a_model_named_for_mlx_lm_is_used_with_a_warning_that_its_own_is_dropped() -> None:
    with ScriptedBackend(_nothing) as backend:
        named = chosen(mode="mlx-lm", base_url=backend.url, model="other")
        unnamed = chosen(mode="mlx-lm", base_url=backend.url)
    assert named.target.is_model_chosen
    assert any("drops the model" in note for note in named.notes)
    assert not unnamed.target.is_model_chosen
    assert not any("drops the model" in note for note in unnamed.notes)


def test_mode_claude_with_a_key_changes_neither_model_nor_limits() -> None:
    key = Secret("sk-ant-key")
    with ScriptedBackend(_nothing) as backend:
        choice = chosen(mode="claude", base_url=backend.url, api_key=key)
    assert (choice.model, choice.target.model, choice.target.max_output_tokens) == (None, None, None)
    assert not goes_straight(Settings(mode="claude", api_key=key))
    assert goes_straight(Settings(mode="claude"))


def test_of_several_servers_the_one_that_can_answer_at_once_is_taken() -> None:
    empty = Found("lmstudio", "http://127.0.0.1:1", (Model("a"),))
    ready = Found("ollama", "http://127.0.0.1:2", (Model("b", is_loaded=True),))
    loading = Found("llamacpp", "http://127.0.0.1:3", problem="Loading model")
    nothing = Found("lmstudio", "http://127.0.0.1:4")
    mlx = Found("mlx-lm", "http://127.0.0.1:5")
    assert best_first([loading, nothing, empty, ready]) == [ready, empty, nothing, loading]
    assert best_first([mlx, ready]) == [mlx, ready]


def test_a_key_goes_to_a_server_that_was_named_and_to_no_other() -> None:
    key = Secret("k")
    assert key_for(Settings(api_key=key)) is None  # whatever answers on a usual port
    assert key_for(Settings(mode="vllm", api_key=key)) == "k"
    assert key_for(Settings(base_url="http://h", api_key=key)) == "k"


def test_the_key_of_a_named_backend_stays_at_its_own_address() -> None:
    place = "config.toml [backends.work]"
    own = Settings(mode="work", base_url="http://h", api_key=Secret("k"), sources={"api_key": place, "base_url": place})
    elsewhere = Settings(
        mode="work", base_url="http://x", api_key=Secret("k"), sources={"api_key": place, "base_url": "--base-url"}
    )
    assert key_for(own) == "k"
    with pytest.raises(SettingError, match="not sent to another address"):
        key_for(elsewhere)


@pytest.mark.parametrize(
    ("window", "told", "limit"),
    [
        (32_768, None, 4096),
        (65_536, None, 8192),
        (131_072, None, 16_384),
        (1_000_000, None, 32_000),
        (262_144, 8000, 8000),
    ],
)
def test_an_answer_may_take_an_eighth_of_the_window_within_bounds(window: int, told: int | None, limit: int) -> None:
    assert output_limit(window, told) == limit


def test_nothing_running_is_answered_with_start_lines() -> None:
    with pytest.raises(NoBackend, match=r"no model server answers at http://127\.0\.0\.1:1"):
        chosen(base_url="http://127.0.0.1:1")
    assert "mlx_lm.server --model" in refused(mode="mlx-lm", base_url="http://127.0.0.1:1")
