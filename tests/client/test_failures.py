"""What the person sees when the model server fails: soon, once, and in words that say what to do."""

import pytest

from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.backend import Exchange, Script
from tests.support.home import Home
from tests.support.script import in_order, words_of_person

WINDOW = 50_000
BYTES_PER_TOKEN = 2


def _too_long(exchange: Exchange) -> None:
    """As llama-server says it."""
    n_prompt = len(exchange.raw) // BYTES_PER_TOKEN
    words = f"request ({n_prompt} tokens) exceeds the available context size ({WINDOW} tokens), try increasing it"
    error = {"code": 400, "type": "exceed_context_size_error", "message": words}
    exchange.json(400, {"error": error | {"n_prompt_tokens": n_prompt, "n_ctx": WINDOW}})


def test_a_single_prompt_that_is_too_long_ends_with_the_servers_figures(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(_too_long)
    done = ask(backend, "x")
    assert done.returncode == 1
    assert "Prompt is too long" in done.stdout
    assert str(len(backend.turns[0].raw) // BYTES_PER_TOKEN) in done.stdout
    assert str(WINDOW) in done.stdout
    assert len(backend.turns) == 1


def test_a_conversation_that_became_too_long_is_compacted_and_goes_on(ask: Ask, home: Home, scripted: Scripted) -> None:
    def script(exchange: Exchange) -> None:
        if len(exchange.raw) > WINDOW * BYTES_PER_TOKEN:
            _too_long(exchange)
        elif "<summary>" in words_of_person(exchange.body):
            exchange.answer(chat.text("<analysis>much</analysis><summary>They talked of alpha.</summary>"))
        else:
            exchange.answer(chat.text("the answer"))

    backend = scripted(script)
    ask(backend, "one", stdin="alpha " * 4000)
    done = ask(backend, "--continue", "two", stdin="beta " * 8000)
    assert (done.returncode, done.stdout) == (0, "the answer\n")
    first, _, compaction, after = (exchange.body["messages"] for exchange in backend.turns)
    assert compaction[: len(first)] == first  # so the summary costs only its own instruction
    assert "They talked of alpha." in after[1]["content"]
    assert "alpha alpha" not in after[1]["content"]
    assert "beta beta" in after[1]["content"]
    (server,) = home.status()
    assert [turn["request_class"] for turn in server["turns"]] == ["main", "main", "compaction", "main"]
    assert server["turns"][1]["error"].startswith("invalid_request_error: prompt is too long: ")


def test_a_key_that_the_server_refuses_is_reported_after_one_request(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(lambda exchange: exchange.json(401, {"error": {"message": "Invalid API Key"}}))
    done = ask(backend, "x")
    assert done.returncode == 1
    assert "Invalid API Key" in done.stdout
    assert "ANYCLAUDE_API_KEY" in done.stdout
    assert backend.url in done.stdout
    assert len(backend.turns) == 1


def test_a_server_that_is_down_is_named_before_the_client_starts(ask: Ask, home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order())
    backend.close()
    done = ask(backend, "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"does not answer at {backend.url}" in done.stderr
    assert "Traceback" not in done.stderr
    assert home.status() == []


def test_a_server_that_goes_away_is_waited_for_and_then_named(ask: Ask, home: Home, scripted: Scripted) -> None:
    def script(exchange: Exchange) -> None:
        exchange.answer(chat.call("Bash", {"command": "true"}))
        backend.close()

    backend = scripted(script)
    done = ask(backend, "x", "--allowedTools", "Bash")
    assert done.returncode == 1
    assert f"at {backend.url} does not answer" in done.stdout
    (server,) = home.status()
    first, *waited = [turn["stop_reason"] for turn in server["turns"]]
    assert first == "tool_use"
    assert 1 <= len(waited) <= 3  # not the client's ten tries
    assert not any(waited)


def _breaks_off_after(chunks: chat.Chunks, end: Script | None = None) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.start()
        exchange.chunks(chunks)
        if end is not None:
            end(exchange)

    return script


@pytest.mark.parametrize("end", [None, Exchange.reset], ids=["closed", "reset"])
def test_words_that_broke_off_are_asked_for_again_and_only_the_second_answer_counts(
    ask: Ask, scripted: Scripted, end: Script | None
) -> None:
    backend = scripted(
        in_order(_breaks_off_after([chat.delta(content="half of a sent")], end), chat.text("the whole answer"))
    )
    done = ask(backend, "x")
    assert (done.returncode, done.stdout) == (0, "the whole answer\n")
    first, second = (exchange.body for exchange in backend.turns)
    assert first["messages"] == second["messages"]


def test_a_call_in_an_answer_that_broke_off_is_not_run(ask: Ask, home: Home, scripted: Scripted) -> None:
    """All its arguments have come, but no word that this was the end of it."""
    file = home.project / "half.txt"
    call = list(chat.call_pieces("Write", {"file_path": str(file), "content": "half"}))
    backend = scripted(in_order(_breaks_off_after(call), chat.text("the whole answer")))
    done = ask(backend, "x", "--permission-mode", "acceptEdits")
    assert (done.returncode, done.stdout) == (0, "the whole answer\n")
    assert not file.exists()
    first, second = (exchange.body for exchange in backend.turns)
    assert first["messages"] == second["messages"]


def test_what_was_finished_before_an_answer_broke_off_is_kept_and_gone_on_from(ask: Ask, scripted: Scripted) -> None:
    """The client's own doing: only the block that was open is lost."""
    pieces = [chat.delta(content="a finished text"), *chat.call_pieces("Bash", {"command": "true"})]
    backend = scripted(in_order(_breaks_off_after(pieces), chat.text("and its end")))
    done = ask(backend, "x", "--allowedTools", "Bash")
    assert done.returncode == 0
    assert "and its end" in done.stdout
    first, second = (exchange.body["messages"] for exchange in backend.turns)
    assert second[: len(first)] == first
    assert second[len(first)] == {"role": "assistant", "content": "a finished text"}
    assert "cut off" in second[-1]["content"]


def test_a_busy_server_is_asked_again_after_the_time_that_it_named(ask: Ask, scripted: Scripted) -> None:
    def busy(exchange: Exchange) -> None:
        exchange.json(503, {"error": {"message": "Loading model"}}, retry_after="1")

    backend = scripted(in_order(busy, chat.text("now")))
    assert ask(backend, "x").stdout == "now\n"
    assert len(backend.turns) == 2


def test_an_answer_cut_off_by_the_token_limit_is_continued(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("the first half", reason="length"), chat.text("the second half")))
    done = ask(backend, "x")
    assert done.returncode == 0
    assert "the second half" in done.stdout
    assert "the first half" in [message["content"] for message in backend.turns[1].body["messages"]]


def test_a_server_error_that_will_not_change_is_shown_at_once_with_its_words(ask: Ask, scripted: Scripted) -> None:
    def template(exchange: Exchange) -> None:
        exchange.json(500, {"error": {"message": "This template knows no such role"}})

    backend = scripted(template)
    done = ask(backend, "x")
    assert done.returncode == 1
    assert "This template knows no such role" in done.stdout
    assert len(backend.turns) == 1
