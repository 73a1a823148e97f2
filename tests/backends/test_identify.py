import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from anyclaude.backends.discovery import Answer, Ask, Found, Model, expect, identify
from anyclaude.backends.kinds import KINDS
from anyclaude.errors import NoBackend
from tests.recorded import server_of

URL = "http://127.0.0.1:1"
MLX = "BaseHTTP/0.6 Python/3.11"


def serving(answers: Mapping[str, object], *, server: str = "", status: int = 200) -> Ask:
    """A server with these paths; a body that is not bytes is sent as JSON."""

    async def ask(path: str) -> Answer | None:
        if path not in answers:
            return Answer(404, server, b"Not Found")
        found = answers[path]
        return Answer(status, server, found if isinstance(found, bytes) else json.dumps(found).encode())

    return ask


async def silent(path: str) -> Answer | None:
    return None


def found_at(ask: Ask) -> Found | None:
    return asyncio.run(identify(ask, URL))


def expected(ask: Ask, kind: str) -> Found:
    return asyncio.run(expect(ask, kind, URL))


_RECORDED = [
    ("llamacpp", Model("qwen3-coder-30b-a3b-q4_k_m", 32768, is_loaded=True, takes_images=False)),
    ("lmstudio", Model("qwen/qwen3-8b", 30000, is_loaded=True, takes_images=False)),
    ("ollama", Model("qwen3:8b", 32768, is_loaded=True)),
    ("vllm", Model("Qwen/Qwen3-Coder-30B-A3B-Instruct", 32768, is_loaded=True)),
]


@pytest.mark.parametrize(("server", "model"), _RECORDED)
def test_a_recorded_server_is_known_with_its_models_and_window(server: str, model: Model) -> None:
    assert found_at(server_of(server)) == Found(server, URL, (model,))


@pytest.mark.parametrize(("server", "model"), _RECORDED)
def test_a_named_kind_has_the_same_models(server: str, model: Model) -> None:
    assert expected(server_of(server), server) == Found(server, URL, (model,))


def test_openrouter_promises_the_smaller_of_its_two_windows() -> None:
    assert expected(server_of("openrouter", under="/api"), "openrouter").models == (
        Model("qwen/qwen3-coder:free", context_window=262000, max_output_tokens=262000, takes_images=False),
    )


def test_the_title_is_the_kinds() -> None:
    assert Found("vllm", URL).title == KINDS["vllm"].title == "vLLM"


# mlx_lm.server


def _mlx(*names: str) -> Ask:
    listing = {"object": "list", "data": [{"id": name, "object": "model", "created": 1} for name in names]}
    return serving({"/v1/models": listing, "/health": {"status": "ok"}}, server=MLX)


def test_mlx_lm_is_known_by_its_header_and_health() -> None:
    assert found_at(_mlx("mlx-community/Qwen3-4B")) == Found(
        "mlx-lm", URL, (Model("mlx-community/Qwen3-4B", is_loaded=True),)
    )


def test_of_several_cached_models_only_the_folder_it_was_started_with_is_known_to_be_loaded() -> None:
    found = found_at(_mlx("mlx-community/a", "mlx-community/b", "/models/mine"))

    assert found is not None
    assert [(model.id, model.is_loaded) for model in found.models] == [
        ("mlx-community/a", False),
        ("mlx-community/b", False),
        ("/models/mine", True),
    ]


@pytest.mark.parametrize("listing", [b"", b"null", {"object": "list", "data": []}])
def test_mlx_lm_without_a_list_is_still_known(listing: object) -> None:
    ask = serving({"/v1/models": listing, "/health": {"status": "ok"}}, server=MLX)

    assert found_at(ask) == Found("mlx-lm", URL)


def test_another_python_server_is_not_mlx_lm() -> None:
    assert found_at(serving({"/v1/models": b"", "/health": b"fine"}, server=MLX)) is None
    assert found_at(serving({"/v1/models": b"", "/health": {"status": "ok"}}, server="uvicorn")) is None


# Others


def test_a_plain_list_is_an_openai_compatible_server() -> None:
    listing = {"data": [{"id": "a", "object": "model"}, {"id": "b", "context_length": 4096, "max_tokens": 512}]}

    assert found_at(serving({"/v1/models": listing})) == Found("openai", URL, (Model("a"), Model("b", 4096, 512)))


def test_an_empty_list_is_one_too() -> None:
    assert found_at(serving({"/v1/models": {"data": []}})) == Found("openai", URL)


def test_a_list_of_the_messages_api() -> None:
    listing = {"data": [{"type": "model", "id": "claude-x", "max_input_tokens": 200000, "max_tokens": 64000}]}

    assert found_at(serving({"/v1/models": listing})) == Found("anthropic", URL, (Model("claude-x", 200000, 64000),))


def test_ollama_without_any_model_is_known() -> None:
    answers = {"/v1/models": {"object": "list", "data": None}, "/": b"Ollama is running", "/api/tags": {"models": None}}

    assert found_at(serving(answers)) == Found("ollama", URL)


def test_an_ollama_model_that_is_not_loaded_tells_no_window() -> None:
    answers: dict[str, object] = {
        "/v1/models": {"data": [{"id": "qwen3:8b", "owned_by": "library"}]},
        "/": b"Ollama is running",
        "/api/tags": {"models": [{"name": "qwen3:8b"}, {"name": "gemma3:4b"}]},
        "/api/ps": {"models": [{"name": "gemma3:4b", "context_length": 8192}]},
    }

    assert found_at(serving(answers)) == Found(
        "ollama", URL, (Model("qwen3:8b"), Model("gemma3:4b", 8192, is_loaded=True))
    )


def test_an_older_lm_studio_is_read_from_the_plain_list() -> None:
    answers = {"/v1/models": {"data": [{"id": "a"}]}, "/lmstudio-greeting": {"lmstudio": True}}

    assert found_at(serving(answers)) == Found("lmstudio", URL, (Model("a"),))


def test_llama_server_without_its_properties_tells_the_window_of_the_list() -> None:
    entry: dict[str, Any] = {"id": "a", "owned_by": "llamacpp", "meta": {"n_ctx": 4096, "n_ctx_train": 262144}}

    assert found_at(serving({"/v1/models": {"data": [entry]}})) == Found(
        "llamacpp", URL, (Model("a", 4096, is_loaded=True),)
    )


def test_the_window_of_one_slot_wins_over_that_of_the_list() -> None:
    answers: dict[str, object] = {
        "/v1/models": {"data": [{"id": "a", "owned_by": "llamacpp", "meta": {"n_ctx": 32768}}]},
        "/props": {"default_generation_settings": {"n_ctx": 8192}},
    }

    assert found_at(serving(answers)) == Found("llamacpp", URL, (Model("a", 8192, is_loaded=True),))


def test_the_window_that_a_model_was_trained_for_is_never_taken() -> None:
    entry: dict[str, Any] = {"id": "a", "owned_by": "llamacpp", "meta": {"n_ctx_train": 262144}}

    assert found_at(serving({"/v1/models": {"data": [entry]}})) == Found(
        "llamacpp", URL, (Model("a", None, is_loaded=True),)
    )


def test_a_router_tells_which_models_are_loaded() -> None:
    entries = [
        {"id": "a", "owned_by": "llamacpp", "meta": None, "status": {"value": "unloaded"}},
        {"id": "b", "owned_by": "llamacpp", "meta": {"n_ctx": 8192}, "status": {"value": "loaded"}},
    ]

    assert found_at(serving({"/v1/models": {"data": entries}}, server="llama.cpp")) == Found(
        "llamacpp", URL, (Model("a"), Model("b", 8192, is_loaded=True))
    )


def test_a_server_that_still_loads_is_found_with_its_problem() -> None:
    answers = {"/v1/models": {"error": {"message": "Loading model", "code": 503}}}

    assert found_at(serving(answers, server="llama.cpp", status=503)) == Found("llamacpp", URL, problem="Loading model")


def test_nothing_is_nothing() -> None:
    assert found_at(silent) is None


@pytest.mark.parametrize(
    "listing",
    [b"", b"<html>hello</html>", b"[]", b"5", b"\xff\xfe", {"hello": "world"}, {"error": "Unexpected endpoint"}],
)
@pytest.mark.parametrize("status", [200, 401, 404, 500])
def test_garbage_is_nothing(listing: object, status: int) -> None:
    assert found_at(serving({"/v1/models": listing}, status=status)) is None


@pytest.mark.parametrize(
    "data",
    [
        "x",
        5,
        None,
        {},
        [None, 5, "x", []],
        [{"name": "no id"}],
        [{"id": "a", "meta": 5, "top_provider": [], "status": 1}],
    ],
)
@pytest.mark.parametrize("owner", ["llamacpp", "vllm", "ollama", "lmstudio", "mlx-lm", "openai"])
def test_a_list_of_the_wrong_shape_is_no_crash(data: object, owner: str) -> None:
    paths = ["/v1/models", "/props", "/api/tags", "/api/ps", "/api/v1/models"]
    ask = serving({path: {"data": data, "models": data} for path in paths})

    found = expected(ask, owner)

    assert found.kind == owner
    assert all(model.context_window is None for model in found.models)


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_list_that_was_refused_is_no_list(status: int) -> None:
    answers = {"/v1/models": {"data": []}, "/health": {"status": "ok"}}

    assert found_at(serving(answers, status=status)) is None
    assert found_at(serving(answers, status=status, server=MLX)) is None


# A kind that the person named


def test_a_named_server_that_is_silent_is_an_error_with_how_to_start_it() -> None:
    with pytest.raises(NoBackend, match=r"llama-server does not answer at http://127\.0\.0\.1:1") as caught:
        expected(silent, "llamacpp")
    assert KINDS["llamacpp"].hint in caught.value.message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_an_error_that_names_the_setting(status: int) -> None:
    with pytest.raises(NoBackend, match="ANYCLAUDE_API_KEY"):
        expected(serving({"/v1/models": b"no"}, status=status), "openrouter")


def test_a_named_server_that_still_loads_is_found_with_its_problem() -> None:
    ask = serving({"/v1/models": {"error": "warming up"}}, status=503)

    assert expected(ask, "vllm") == Found("vllm", URL, problem="warming up")
    assert expected(serving({"/v1/models": b""}, status=503), "vllm").problem == "not ready"
