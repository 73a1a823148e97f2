import json
from typing import Any

import httpx2
import pytest

from anyclaude.backends.failures import error_in_stream, error_of, read_failure, relayed_error
from anyclaude.errors import (
    ApiError,
    BackendFailed,
    BackendTimeout,
    InvalidRequest,
    Missing,
    Overloaded,
    PromptTooLong,
    RateLimited,
    Refused,
    Relayed,
    TooLarge,
)
from tests.recorded import ERRORS, STREAMS, events_in, refusal

SERVER = "vLLM at http://127.0.0.1:8000"
KEY = "sk-or-v1-0123456789abcdef0123456789abcdef"


def answered(status: int, body: Any = b"", **headers: str) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return error_of(SERVER, status, httpx2.Headers(fields), raw)


def recorded(name: str) -> ApiError:
    """LM Studio answers 200 and breaks off inside the stream; everybody else answers with a status."""
    found = refusal(name)
    if found.status == 200:
        (event,) = events_in(found.body)
        return error_in_stream(SERVER, event.data)
    return error_of(SERVER, found.status, httpx2.Headers(found.headers), found.body)


_EXPECTED: dict[str, tuple[type[ApiError], str]] = {
    "llamacpp/error_context": (PromptTooLong, "prompt is too long: 41210 tokens > 32768 maximum"),
    "llamacpp/error_loading": (Overloaded, f"{SERVER}: Loading model"),
    "llamacpp/error_model": (Missing, f"{SERVER}: model 'no-such-model' not found"),
    "llamacpp/error_schema": (
        InvalidRequest,
        f"{SERVER}: JSON schema conversion failed: Pattern must start with '^' and end with '$'",
    ),
    "lmstudio/error_context": (PromptTooLong, "prompt is too long: 31430 tokens > 30000 maximum"),
    "lmstudio/error_context_nonstream": (PromptTooLong, "prompt is too long: 9000 tokens > 4096 maximum"),
    "lmstudio/error_model": (
        Missing,
        (
            f'{SERVER}: Model "no-such-model" not found. Please specify a valid model. '
            "Your models: qwen/qwen3-8b text-embedding-nomic-embed-text-v1.5"
        ),
    ),
    "ollama/error_context": (PromptTooLong, "prompt is too long: 41210 tokens > 32768 maximum"),
    "ollama/error_context_old": (PromptTooLong, "prompt is too long: the input length exceeds the context length"),
    "ollama/error_model": (Missing, f"{SERVER}: model 'no-such-model' not found"),
    "ollama/error_overloaded": (
        Overloaded,
        f"{SERVER}: server busy, please try again. maximum pending requests exceeded",
    ),
    "openrouter/error_context": (
        PromptTooLong,
        (
            "input length and `max_tokens` exceed context limit: 205293 + 51200 > 256000, "
            "decrease input length or `max_tokens` and try again"
        ),
    ),
    "openrouter/error_credits": (
        Refused,
        f"{SERVER}: Insufficient credits (HTTP 402; check ANYCLAUDE_API_KEY or api_key)",
    ),
    "openrouter/error_model": (Missing, f"{SERVER}: no-such/model is not a valid model ID"),
    "openrouter/error_rate_limit": (RateLimited, f"{SERVER}: Rate limit exceeded"),
    "vllm/error_context": (PromptTooLong, "prompt is too long: 32769 tokens > 32768 maximum"),
    "vllm/error_model": (Missing, f"{SERVER}: The model `no-such-model` does not exist."),
    "vllm/error_tools_disabled": (
        InvalidRequest,
        f'{SERVER}: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_every_recorded_refusal_is_the_error_that_the_client_acts_on(name: str) -> None:
    error = recorded(name)

    assert (type(error), error.message) == _EXPECTED[name]


def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    assert recorded("openrouter/error_rate_limit").retry_after_s == 60.0


@pytest.mark.parametrize(
    ("server", "kind", "message"),
    [
        ("llamacpp", PromptTooLong, "prompt is too long: Context size has been exceeded."),
        ("lmstudio", BackendFailed, f"{SERVER}: Compute error."),
    ],
)
def test_an_error_in_the_middle_of_a_stream(server: str, kind: type[ApiError], message: str) -> None:
    error = error_in_stream(SERVER, events_in(STREAMS[f"{server}/midstream_error"])[-1].data)

    assert (type(error), error.message) == (kind, message)


@pytest.mark.parametrize("server", ["vllm", "openrouter"])
def test_an_error_in_the_middle_of_a_stream_keeps_the_servers_words(server: str) -> None:
    data = events_in(STREAMS[f"{server}/midstream_error"])[-1].data
    error = error_in_stream(SERVER, data)

    assert type(error) is BackendFailed
    assert error.message == f"{SERVER}: {json.loads(data)['error']['message']}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "request (9 tokens) exceeds the available context size (8 tokens), try increasing it",
            "prompt is too long: 9 tokens > 8 maximum",
        ),
        (
            (
                "You passed 769 input tokens and requested 32000 output tokens. However, the model's context length is"
                " only 32768 tokens, resulting in a maximum input length of 768 tokens."
            ),
            "input length and `max_tokens` exceed context limit: 769 + 32000 > 32768",
        ),
        (
            (
                "You passed 40000 input tokens and requested 10 output tokens. However, the model's context length is"
                " only 32768 tokens."
            ),
            "prompt is too long: 40000 tokens > 32768 maximum",
        ),
        (
            (
                "This model's maximum context length is 8192 tokens. However, you requested 10000 tokens "
                "(2000 in the messages, 8000 in the completion). Please reduce the length of the messages."
            ),
            "input length and `max_tokens` exceed context limit: 2000 + 8000 > 8192",
        ),
        (
            (
                "This model's maximum context length is 8192 tokens. However, you requested 10500 tokens "
                "(2000 in the messages, 500 in the functions, 8000 in the completion)."
            ),
            "input length and `max_tokens` exceed context limit: 2500 + 8000 > 8192",
        ),
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
            "prompt is too long: 9000 tokens > 8192 maximum",
        ),
        (
            (
                "This endpoint's maximum context length is 1000 tokens. However, you requested about 1600 tokens "
                "(1500 of text input, 100 in the output)."
            ),
            "prompt is too long: 1500 tokens > 1000 maximum",
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", "prompt is too long: 210000 tokens > 200000 maximum"),
    ],
)
def test_every_wording_gives_the_servers_own_figures(words: str, message: str) -> None:
    error = answered(400, {"error": {"message": words}})

    assert type(error) is PromptTooLong
    assert error.message.startswith(message)
    assert (error.status, error.kind) == (400, "invalid_request_error")


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_prompt_that_is_too_long_is_told_so_whatever_the_status(status: int) -> None:
    assert type(answered(status, {"error": {"message": "maximum context length exceeded"}})) is PromptTooLong


@pytest.mark.parametrize("words", ["Rate limit of the context window", "context length"])
def test_a_refusal_for_another_reason_is_not_a_long_prompt(words: str) -> None:
    assert type(answered(429, {"error": {"message": words}})) is RateLimited


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Refused),
        (402, Refused),
        (403, Refused),
        (404, Missing),
        (405, InvalidRequest),
        (407, Refused),
        (408, BackendTimeout),
        (413, TooLarge),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, BackendFailed),
        (501, BackendFailed),
        (502, BackendFailed),
        (503, Overloaded),
        (504, BackendTimeout),
        (529, Overloaded),
    ],
)
def test_every_status_has_its_error_and_a_message(status: int, kind: type[ApiError]) -> None:
    assert type(answered(status)) is kind
    assert answered(status).message.startswith(f"{SERVER} answered HTTP {status}")


def test_mlx_lm_answers_404_to_what_is_no_missing_model() -> None:
    assert type(answered(404, {"error": "Conversation roles must alternate"})) is InvalidRequest
    assert type(answered(404, {"error": "Repository Not Found for url"})) is Missing


def test_what_trying_again_cannot_help_is_not_tried_again() -> None:
    assert answered(401).should_retry is False
    assert answered(403).should_retry is False
    assert answered(500).should_retry is False
    assert answered(503).should_retry is None


@pytest.mark.parametrize(
    ("value", "seconds"), [("2", 2.0), ("1.5", 1.5), ("", None), ("soon", None), ("-1", None), ("9e9", None)]
)
def test_a_time_to_wait_is_read_only_where_it_is_a_number(value: str, seconds: float | None) -> None:
    assert answered(429, retry_after=value).retry_after_s == seconds
    assert answered(503, retry_after=value).retry_after_s == seconds


_PAGE = b"""<!DOCTYPE html><html><head><title>502 Bad Gateway</title><style>body { color: red }</style>
<script>
alert("x")
</script></head><body><center><h1>502
Bad   Gateway</h1></center><hr>nginx</body></html>"""


def test_a_page_of_html_shows_its_words_on_one_line() -> None:
    assert answered(500, _PAGE).message == f"{SERVER}: 502 Bad Gateway 502 Bad Gateway nginx (HTTP 500)"
    assert answered(502, _PAGE).message == f"{SERVER}: 502 Bad Gateway 502 Bad Gateway nginx (HTTP 502)"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "words", "type": "x"}}, "words"),
        ({"error": "words"}, "words"),
        ({"message": "words", "object": "error"}, "words"),
        ({"detail": "words"}, "words"),
        ({"detail": [{"loc": ["body"], "msg": "m"}]}, '[{"loc":["body"],"msg":"m"}]'),
        ({"error": {"code": 5}}, '{"code":5}'),
        ({"error": {"message": json.dumps({"error": {"message": "inside"}})}}, "inside"),
        ({"error": {"message": "Provider returned error", "metadata": {"raw": "the cause"}}}, "the cause"),
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error":{"message":"deep"}}'}}},
            "deep",
        ),
        ({"error": {"message": "two\n  lines"}}, "two lines"),
        ({"error": {"message": "{ not json"}}, "{ not json"),
        ({"error": None}, "None"),
        ({}, "{}"),
    ],
)
def test_every_shape_of_a_refusal_is_read(body: dict[str, Any], message: str) -> None:
    assert read_failure(json.dumps(body).encode()).message == message


@pytest.mark.parametrize("body", [b"", b" \n", b"<p></p>"])
def test_a_body_without_words_has_no_message(body: bytes) -> None:
    assert read_failure(body).message == ""


def test_text_that_is_not_utf8_is_shown_as_far_as_it_can_be() -> None:
    assert read_failure(b"caf\xe9") == read_failure("caf\ufffd".encode())


def test_a_long_refusal_is_cut() -> None:
    message = read_failure(b"x" * 100_000).message

    assert len(message) == 600
    assert message.endswith("…")


def test_figures_that_are_no_numbers_are_not_believed() -> None:
    body = {"error": {"message": "too large", "n_prompt_tokens": "9", "n_ctx": True}}

    assert type(answered(400, body)) is InvalidRequest


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
@pytest.mark.parametrize(
    "words",
    [
        f"Incorrect API key provided: {KEY}.",
        f"bad header 'Bearer {KEY}'",
        f"key={KEY}",
        "token hf_abcdefghijklmnopqrstuv",
    ],
)
def test_a_key_that_a_server_repeats_is_never_shown(status: int, words: str) -> None:
    for body in ({"error": {"message": words}}, {"detail": words}, words.encode()):
        message = answered(status, body).message

        assert "0123456789abcdef" not in message
        assert "abcdefghijkl" not in message
        assert "(hidden)" in message
    assert "0123456789abcdef" not in error_in_stream(SERVER, json.dumps({"error": words}).encode()).message


# Servers that speak the Messages API themselves


def relayed(status: int, kind: str, message: str, **headers: str) -> ApiError:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return relayed_error(SERVER, status, httpx2.Headers(fields), body)


def test_a_refusal_in_the_clients_own_language_keeps_its_words_and_status() -> None:
    error = relayed(400, "invalid_request_error", "capability_rejected: mid_conv_system")

    assert type(error) is Relayed
    assert (error.status, error.kind, error.message) == (
        400,
        "invalid_request_error",
        "capability_rejected: mid_conv_system",
    )
    assert error.should_retry is None


def test_what_the_server_says_of_trying_again_is_kept() -> None:
    error = relayed(529, "overloaded_error", "Overloaded", retry_after="7", x_should_retry="true")

    assert (error.retry_after_s, error.should_retry) == (7.0, True)
    assert relayed(429, "rate_limit_error", "x", x_should_retry="false").should_retry is False
    assert relayed(429, "rate_limit_error", "x", x_should_retry="maybe").should_retry is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_ours_and_the_client_is_not_told_to_sign_in(status: int) -> None:
    error = relayed(status, "authentication_error", "invalid x-api-key")

    assert type(error) is Refused
    assert "ANYCLAUDE_API_KEY" in error.message
    assert error.status == 403


@pytest.mark.parametrize("body", [b"", b"<html>gone</html>", b'{"error":"words"}', b"\xff"])
def test_a_refusal_in_another_shape_is_read_like_any_other(body: bytes) -> None:
    error = relayed_error(SERVER, 404, httpx2.Headers(), body)

    assert (type(error), error.message) == (type(answered(404, body)), answered(404, body).message)
    assert type(error) is not Relayed
