"""Every recorded stream, in any chunking, through the decoder and the translator."""

import itertools
import json
import urllib.request

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.wire.events import Event
from tests.recorded import SERVERS, STREAMS, WHOLE_STREAMS
from tests.translate.reading import check_order, chunks_in, ending, shown, translated, translator


def events_of(pieces: list[bytes]) -> list[Event]:
    one = translator()
    events = [one.start(), *(event for chunk in chunks_in(pieces) for event in one.feed(chunk))]
    return [*events, *one.finish()] if one.has_finish_reason else events


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(STREAMS)), places=st.lists(st.integers(0, 1 << 20), max_size=30))
def test_any_chunking_gives_the_same_events(name: str, places: list[int]) -> None:
    body = STREAMS[name]
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]

    assert events_of([body[start:end] for start, end in itertools.pairwise(edges)]) == events_of([body])


@pytest.mark.parametrize("name", sorted(WHOLE_STREAMS))
def test_every_recorded_answer_has_a_valid_order(name: str) -> None:
    assert shown(translated(chunks_in([WHOLE_STREAMS[name]])))


@pytest.mark.parametrize("server", SERVERS)
def test_a_plain_answer_arrives_whole_with_its_usage(server: str) -> None:
    events = translated(chunks_in([STREAMS[f"{server}/text"]]))

    assert [(block.kind, block.text) for block in shown(events)] == [("text", "The folder holds three files.")]
    assert ending(events).delta.stop_reason == "end_turn"
    assert prompt_tokens(events) == 44
    assert ending(events).usage.output_tokens == 6


@pytest.mark.parametrize("server", SERVERS)
def test_thoughts_come_before_the_answer_and_once(server: str) -> None:
    events = translated(chunks_in([STREAMS[f"{server}/reasoning"]]))

    assert [(block.kind, block.text) for block in shown(events)] == [
        ("thinking", "The user wants a count."),
        ("text", "There are three."),
    ]
    assert ending(events).delta.stop_reason == "end_turn"
    assert prompt_tokens(events) == 52


@pytest.mark.parametrize("server", SERVERS)
def test_a_call_arrives_whole_under_an_id_of_ours(server: str) -> None:
    events = translated(chunks_in([STREAMS[f"{server}/tool_call"]]))

    text, call = shown(events)
    assert (text.kind, text.text) == ("text", "Listing it.")
    assert (call.kind, call.id, json.loads(call.text)) == ("Bash", "toolu_1", {"command": "ls -la"})
    assert ending(events).delta.stop_reason == "tool_use"
    assert prompt_tokens(events) == 412
    assert ending(events).usage.output_tokens == 21


@pytest.mark.parametrize("server", ["llamacpp", "openrouter"])
def test_cached_tokens_are_told_as_the_server_told_them(server: str) -> None:
    usage = ending(translated(chunks_in([STREAMS[f"{server}/tool_call"]]))).usage

    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (32, 380, 0)


def test_progress_of_reading_is_no_part_of_the_answer() -> None:
    events = translated(chunks_in([STREAMS["llamacpp/progress"]]))

    assert [block.text for block in shown(events)] == ["Done."]
    assert ending(events).usage.cache_read_input_tokens == 2048


@pytest.mark.parametrize("server", ["llamacpp", "lmstudio", "ollama", "vllm"])
def test_a_stream_that_broke_off_has_no_finish_reason(server: str) -> None:
    one = translator()
    for chunk in chunks_in([STREAMS[f"{server}/midstream_error"]]):
        assert all(event for event in one.feed(chunk))

    assert not one.has_finish_reason


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.sampled_from("a\n 😀👩‍👩‍👧‍👦é日"), min_size=1), size=st.integers(1, 9), is_ascii=st.booleans())
def test_emoji_split_across_chunks_arrives_whole(text: str, size: int, is_ascii: bool) -> None:
    delta = json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=is_ascii).encode()
    body = b"data: " + delta + b'\n\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'

    events = translated(chunks_in(body[n : n + size] for n in range(0, len(body), size)))

    assert [block.text for block in shown(events)] == [text]


def prompt_tokens(events: list[Event]) -> int:
    usage = ending(events).usage
    assert isinstance(usage.input_tokens, int)
    cached = usage.cache_read_input_tokens
    return usage.input_tokens + (cached if isinstance(cached, int) else 0)


def test_any_chunking_of_the_real_mlx_lm_servers_stream_gives_the_same_events(mlx: str) -> None:
    words = {"role": "user", "content": "Say something, please. " * 40}
    fields = {"messages": [words], "max_tokens": 60, "stream": True, "stream_options": {"include_usage": True}}
    request = urllib.request.Request(
        f"{mlx}/v1/chat/completions", json.dumps(fields).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        body = response.read()
    assert body.endswith(b"data: [DONE]\n\n")
    whole = events_of([body])
    check_order(whole)
    assert ending(whole).usage.output_tokens > 0
    for size in (1, 2, 3, 7, 64, 1000):
        assert events_of([body[at : at + size] for at in range(0, len(body), size)]) == whole
