import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.wire.messages import decode_request
from anyclaude.wire.text import mend_text


def test_half_an_emoji_becomes_a_replacement_character() -> None:
    assert mend_text(rb'"cut \ud83d here"') == rb'"cut \ufffd here"'


def test_a_lone_second_half_becomes_one_too() -> None:
    assert mend_text(rb'"\uDE00"') == rb'"\ufffd"'


def test_a_whole_pair_stays() -> None:
    assert mend_text(rb'"\ud83d\uDE00"') == rb'"\ud83d\uDE00"'


def test_a_lone_half_before_a_pair_is_mended_alone() -> None:
    assert json.loads(mend_text(rb'"\ud800\ud83d\ude00"')) == "\ufffd\U0001f600"


def test_two_halves_in_the_wrong_order_are_both_mended() -> None:
    assert json.loads(mend_text(rb'"\ude00\ud83d"')) == "\ufffd\ufffd"


def test_an_escaped_backslash_before_the_letters_is_text() -> None:
    assert mend_text(rb'"C:\\ud83d"') == rb'"C:\\ud83d"'
    assert mend_text(rb'"C:\\\ud83d"') == rb'"C:\\\ufffd"'


def test_bytes_that_are_not_utf8_become_replacement_characters() -> None:
    assert json.loads(mend_text(b'"caf\xe9 \xf0\x9f\x98"')) == "caf\ufffd \ufffd"


@pytest.mark.parametrize("text", [rb'"\ud83d"', b'"\xff"', b'"\xed\xa0\xbd"'])
def test_a_request_with_broken_text_is_read_after_mending(text: bytes) -> None:
    body = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":[{"type":"text","text":%s}]}]}' % text

    request = decode_request(mend_text(body))

    assert "\ufffd" in str(request.messages[0].content[0])


@settings(max_examples=100, deadline=None)
@given(value=st.text(), ascii_only=st.booleans())
def test_valid_json_is_untouched(value: str, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()

    assert mend_text(body) == body


@settings(max_examples=100, deadline=None)
@given(units=st.lists(st.one_of(st.integers(0xD7F0, 0xE010), st.sampled_from([0x41, 0x5C5C])), max_size=12))
def test_any_mixture_of_halves_becomes_valid_text(units: list[int]) -> None:
    body = b'"' + b"".join(b"\\\\" if unit == 0x5C5C else b"\\u%04x" % unit for unit in units) + b'"'

    json.loads(mend_text(body)).encode()
