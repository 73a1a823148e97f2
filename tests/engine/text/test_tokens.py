"""Text to ids and back: as the ordinary tokenizer where nothing steers, and never a control id from content."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from anyclaude.engine.text.tokens import Vocabulary
from anyclaude.errors import ModelRefused
from tests.engine.conversations import PIECES
from tests.engine.shapes import MARKUP, SPECIAL, tokenizer_json, vocabulary_of
from tests.engine.tokenizers_made import CONTROL, unigram_json, vocabulary, word_marked_json

hostile = st.lists(st.one_of(st.sampled_from([*PIECES, *CONTROL]), st.characters(codec="utf-8")), max_size=12).map(
    "".join
)
plain = st.lists(st.sampled_from(["a", " b", "\n", "  ", "don't", "wörld", "中文", "🧪", "1234", "\t", "!", "▁", "_"]))
SCHEMES = ("first", "always", "never", "legacy")
KINDS = {"byte level": tokenizer_json, "unigram": unigram_json} | {
    f"word marks, {scheme}": lambda scheme=scheme: word_marked_json(scheme) for scheme in SCHEMES
}


def control_ids(known: Vocabulary) -> set[int]:
    return set(known.added.values()) - {known.added.get("<unk>", -1)}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=hostile, is_start=st.booleans())
def test_content_never_yields_a_control_id(kind: str, text: str, is_start: bool) -> None:
    known = vocabulary(KINDS[kind]())
    ids = known.encode(known.shield(text), is_start=is_start)
    assert not control_ids(known) & set(ids.tolist())


@settings(max_examples=60, deadline=None)
@given(hostile)
def test_content_comes_back_as_it_was(text: str) -> None:
    bytes_, words = vocabulary(tokenizer_json()), vocabulary(word_marked_json("never"))
    for known, said in ((bytes_, text), (words, text.replace("▁", "_"))):  # the mark itself is a space to the latter
        ids = known.encode("[INST]" + known.shield(said) + "[/INST]")
        assert known.decode(ids) == f"[INST]{said}[/INST]"


@pytest.mark.parametrize("kind", ["byte level", *(f"word marks, {scheme}" for scheme in SCHEMES)])
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.tuples(plain.map("".join), st.sampled_from(["[INST]", "</s>", "[/INST]"])), max_size=4))
def test_text_that_steers_nothing_is_encoded_as_ever(kind: str, parts: list[tuple[str, str]]) -> None:
    known, ordinary = vocabulary(KINDS[kind]()), Tokenizer.from_str(KINDS[kind]())
    rendered = "".join(known.shield(text) + marker for text, marker in parts)
    expected = ordinary.encode("".join(text + marker for text, marker in parts), add_special_tokens=False).ids
    assert known.encode(rendered).tolist() == expected


def test_no_space_is_invented_behind_a_control_token_or_in_the_middle() -> None:
    known = vocabulary(word_marked_json("first"))
    assert known.decode(known.encode("[INST]word[/INST]word")) == "[INST]word[/INST]word"
    assert known.decode([known.added["[INST]"], *known.encode("word", is_start=False)]) == "[INST]word"


def test_white_space_beside_a_control_token_goes_where_the_token_takes_it() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.add_tokens([AddedToken("<|left|>", lstrip=True), AddedToken("<|right|>", rstrip=True)])
    text = "a  <|left|>  b  <|right|>\n c"
    known = vocabulary(tokenizer.to_str())
    assert known.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def test_runs_of_white_space_may_be_tokens_of_their_own_in_content() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_json())
    tokenizer.add_tokens([AddedToken("\n\n\n", normalized=False), AddedToken("    ", normalized=False)])
    known = vocabulary(tokenizer.to_str())
    text = "a\n\n\nb     c"
    assert known.encode(known.shield(text)).tolist() == tokenizer.encode(text, add_special_tokens=False).ids
    assert known.decode(known.encode(known.shield(text))) == text


def test_a_long_text_that_comes_again_is_not_encoded_again() -> None:
    known = vocabulary(tokenizer_json())
    text = "<|im_start|>" + "a word " * 1_000 + "<|im_end|>"
    first, n_encoded = known.encode(text), known.n_chars_encoded
    assert (known.encode(text) == first).all()
    assert known.n_chars_encoded == n_encoded == 7_000


@settings(deadline=None)
@given(hostile)
def test_streamed_tokens_are_the_whole_text_and_only_whole_characters(text: str) -> None:
    known = vocabulary_of("chatml")
    decoder = known.decoder()
    pieces = [decoder.feed(int(token)) for token in known.encode(known.shield(text))]
    assert "".join(pieces) + decoder.finish() == text
    assert not any("\ufffd" in piece for piece in pieces) or "\ufffd" in text


def test_a_character_that_is_cut_off_is_shown_as_such_before_a_control_token() -> None:
    known = vocabulary_of("chatml")
    first = next(int(token) for token in known.encode("🧪"))
    decoder = known.decoder()
    assert decoder.feed(first) == ""
    assert decoder.feed(known.added["<|im_end|>"]) == "\ufffd<|im_end|>"
    assert decoder.feed(first) == ""
    assert decoder.finish() == "\ufffd"


def test_an_id_that_the_vocabulary_does_not_have_is_no_text() -> None:
    known = vocabulary_of("chatml")
    assert known.decode([known.size + 7]) == ""


def write(folder: Path, **files: object) -> Path:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder


def test_a_folder_is_read_with_what_its_configuration_adds(tmp_path: Path) -> None:
    n = Tokenizer.from_str(tokenizer_json()).get_vocab_size()
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "added_tokens_decoder": {str(n): {"content": "<|late|>", "special": True}},
    }
    write(tmp_path, tokenizer=tokenizer_json(), tokenizer_config=config, generation_config={"eos_token_id": [n, 7]})
    known = Vocabulary.read(tmp_path)
    assert (known.bos, known.eos, known.added["<|late|>"], known.size) == ("<s>", "</s>", n, n + 1)
    assert known.end_ids == {n, 7, known.added["</s>"]}
    assert {known.added[text] for text in SPECIAL} <= known.special
    assert not {known.added[text] for text in MARKUP} & known.special


BROKEN: dict[str, dict[str, object]] = {
    "no tokenizer.json": {},
    "no JSON": {"tokenizer": "{"},
    "no JSON object": {"tokenizer": "[1]"},
    "nested without end": {"tokenizer": "[" * 200_000},
    "no tokenizer": {"tokenizer": {"model": {"type": "Magic"}, "decoder": {"type": "ByteLevel"}}},
    "no list": {"tokenizer": {"added_tokens": 5}},
    "no text": {"tokenizer": {"added_tokens": [{"id": 5}]}},
    "an id that is none": {"tokenizer": {"added_tokens": [{"id": -5, "content": "<x>"}]}},
    "an endless token": {"tokenizer": {"added_tokens": [{"id": 5, "content": "x" * 10_000}]}},
    "one id twice": {"tokenizer": {"added_tokens": [{"id": 5, "content": "<x>"}, {"id": 5, "content": "<y>"}]}},
    "two ids": {
        "tokenizer": {"added_tokens": [{"id": 5, "content": "<x>"}]},
        "tokenizer_config": {"added_tokens_decoder": {"6": {"content": "<x>"}}},
    },
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_is_refused_with_what_is_wrong(fault: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused) as refused:
        Vocabulary.read(write(tmp_path, **BROKEN[fault]))
    assert "token" in refused.value.message


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ModelRefused, match="no regular file"):
        Vocabulary.read(tmp_path)


def test_a_way_of_writing_words_that_is_not_known_is_refused(tmp_path: Path) -> None:
    table = json.loads(tokenizer_json()) | {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    with pytest.raises(ModelRefused, match="WordPiece"):
        Vocabulary.read(write(tmp_path, tokenizer=table))
