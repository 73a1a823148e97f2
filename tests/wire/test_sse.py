import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.wire.sse import Comment, ServerEvent, SseDecoder, encode_sse
from tests.recorded import STREAMS

_LINES = st.lists(
    st.sampled_from(
        [
            b"data: {}",
            b"data:x",
            b"data",
            b"data: ",
            b"event: error",
            b": ping",
            b":",
            b"",
            b"",
            b"id: 7",
            b"\xef\xbb\xbf",
        ]
    ),
    max_size=12,
)
_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def read(*chunks: bytes) -> list[ServerEvent | Comment]:
    decoder = SseDecoder()
    return [item for chunk in chunks for item in decoder.feed(chunk)]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(sorted(STREAMS)), places=st.lists(st.integers(0, 1 << 20), max_size=40))
def test_any_chunking_of_a_recorded_stream_gives_the_same_events(name: str, places: list[int]) -> None:
    body = STREAMS[name]

    assert read(*cut(body, places)) == read(body)


@settings(max_examples=100, deadline=None)
@given(lines=_LINES, end=_ENDS)
def test_byte_by_byte_gives_the_same_events_with_every_line_ending(lines: list[bytes], end: bytes) -> None:
    body = b"".join(line + end for line in lines)

    assert read(*(body[n : n + 1] for n in range(len(body)))) == read(body)


@settings(max_examples=100, deadline=None)
@given(lines=_LINES, end=_ENDS)
def test_the_line_ending_makes_no_difference(lines: list[bytes], end: bytes) -> None:
    def written(line_end: bytes) -> bytes:
        return b"".join(line + line_end for line in lines) + b": last\n"

    assert read(written(end)) == read(written(b"\n"))


def test_an_event_has_its_name_and_data() -> None:
    assert read(b"event: error\ndata: {}\n\n") == [ServerEvent("error", b"{}")]


def test_several_data_lines_are_joined_by_line_feeds() -> None:
    assert read(b"data: a\ndata:  b\ndata:c\n\n") == [ServerEvent("", b"a\n b\nc")]


def test_an_event_without_data_is_not_dispatched_and_its_name_is_forgotten() -> None:
    assert read(b"event: ping\n\ndata: x\n\n") == [ServerEvent("", b"x")]


def test_an_empty_data_line_is_an_event_with_empty_data() -> None:
    assert read(b"data\n\n") == [ServerEvent("", b"")]


def test_a_comment_comes_out_at_once_and_without_its_colon() -> None:
    assert read(b": keepalive 12/34\n") == [Comment("keepalive 12/34")]
    assert read(b":\n") == [Comment("")]


def test_unknown_fields_are_ignored() -> None:
    assert read(b"id: 1\nretry: 5\nnonsense\ndata: x\n\n") == [ServerEvent("", b"x")]


def test_a_byte_order_mark_at_the_start_is_no_text_even_in_single_bytes() -> None:
    body = b"\xef\xbb\xbfdata: x\n\n"

    assert read(body) == [ServerEvent("", b"x")]
    assert read(*(body[n : n + 1] for n in range(len(body)))) == [ServerEvent("", b"x")]


def test_a_byte_order_mark_after_the_start_is_not_taken_away() -> None:
    assert read(b":\n", b"\xef\xbb\xbfdata: x\n\n") == [Comment("")]


def test_a_short_first_comment_does_not_wait_for_more_bytes() -> None:
    assert read(b":", b"\n") == [Comment("")]


def test_a_carriage_return_waits_for_its_line_feed() -> None:
    assert read(b"data: x\r", b"\n\r", b"\n") == [ServerEvent("", b"x")]


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(st.characters(codec="ascii", categories=["L"]), max_size=8),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\r\n")),
)
def test_what_is_encoded_is_read_back(name: str, text: str) -> None:
    assert read(encode_sse(name, text.encode())) == [ServerEvent(name, text.encode())]
