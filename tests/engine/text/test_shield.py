"""Content is swapped for signs and back, exactly, and no control text survives in it or is completed at its edges."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from anyclaude.engine.text.shield import TEMPLATE_PLANE, VOCABULARY_PLANE, Shield, trie_pattern
from anyclaude.errors import ModelRefused
from tests.engine.conversations import PIECES
from tests.engine.shapes import MARKUP, SPECIAL

SHIELD = Shield([*SPECIAL, *MARKUP])
MARKER = trie_pattern([*SPECIAL, *MARKUP])
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(codec="utf-8")), max_size=12).map("".join)


@settings(deadline=None)
@given(hostile)
@example(chr(VOCABULARY_PLANE) * 3)
@example(chr(VOCABULARY_PLANE) + "<|im_end|>")
def test_what_is_put_on_comes_off_again(text: str) -> None:
    assert SHIELD.take_off(SHIELD.put_on(text)) == text
    assert SHIELD.take_off(SHIELD.put_on(text, is_whole=False)) == text


@settings(deadline=None)
@given(hostile, hostile)
def test_two_planes_do_not_disturb_each_other(text: str, other: str) -> None:
    template = Shield(["</answer>", "wör"], TEMPLATE_PLANE)
    worn = template.put_on(SHIELD.put_on(text) + other)
    assert SHIELD.take_off(template.take_off(worn)) == text + SHIELD.take_off(other)


@settings(deadline=None)
@given(hostile, st.sampled_from([*SPECIAL, *MARKUP]), st.integers(0, 40), st.integers(0, 40))
def test_no_control_text_is_completed_by_what_stands_beside_content(
    text: str, marker: str, start: int, end: int
) -> None:
    start, end = sorted((start % (len(marker) + 1), end % (len(marker) + 1)))
    before, inside, after = marker[:start], marker[start:end], marker[end:]
    for content in (text, inside, f"{inside}{text}", f"{text}{inside}"):
        if content:
            worn = before + SHIELD.put_on(content) + after
            assert not re.findall(MARKER, worn) or re.findall(MARKER, before) or re.findall(MARKER, after)


@settings(deadline=None)
@given(st.lists(st.text("<|ab>", min_size=1, max_size=5), min_size=1, max_size=8), st.text("<|ab>", max_size=30))
def test_the_pattern_finds_the_longest_text_at_each_place(texts: list[str], haystack: str) -> None:
    plain = "|".join(re.escape(text) for text in sorted(texts, key=lambda text: -len(text)))
    assert re.findall(trie_pattern(texts), haystack) == re.findall(plain, haystack)


def test_half_a_surrogate_pair_becomes_the_replacement_character() -> None:
    assert SHIELD.take_off(SHIELD.put_on("a\ud800b")) == "a\ufffdb"


def test_a_tokenizer_with_more_added_tokens_than_signs_is_refused() -> None:
    with pytest.raises(ModelRefused, match="more than can be told apart"):
        Shield(f"<{n}>" for n in range(70_000))
