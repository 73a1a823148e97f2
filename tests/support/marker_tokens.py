"""The tokenizer of the marker model: each marker is one token wherever it stands, and answers have tokens of their own.

An answer's own token is an entry of the vocabulary that no merge leads to: decoding gives its text, encoding never
gives it, so a marker named in an answer is no marker until the text comes back as content.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from demo.tiny_model import END_TOKENS, MARKUP_TOKENS, SPECIAL_TOKENS
from tests.support.tokenizer_files import trained_tokenizer

MAX_PLACES = 63
_N_TRAINED = 8_192
_MIN_CHARS, _N_PIECES = 12, 40
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


@dataclass(frozen=True)
class AnswerToken:
    """`place` counts the answer's own tokens from 1; 0 is a token that prompts may hold as well."""

    id: int
    place: int


@dataclass(frozen=True)
class MarkerTokens:
    """`answers` end with the end of turn; the first is the default, then one per marker."""

    tokenizer: Tokenizer
    marker_ids: list[int]
    answers: list[list[AnswerToken]]
    border_ids: list[int]
    end_ids: list[int]


def marker_tokens(markers: Sequence[str], answers: Sequence[str]) -> MarkerTokens:
    _check_markers(markers)
    described = json.loads(trained_tokenizer(_N_TRAINED))
    _add_markers(described, markers)
    plain = Tokenizer.from_str(json.dumps(described))
    cut = _Cut(plain, markers)
    entries = [cut.entries(answer) for answer in answers]
    _add_entries(described, cut.places)
    tokenizer = Tokenizer.from_str(json.dumps(described))
    ids = tokenizer.get_vocab()
    end = AnswerToken(ids["<|im_end|>"], 0)
    return MarkerTokens(
        tokenizer,
        [ids[marker] for marker in markers],
        [[*(AnswerToken(ids[entry], place) for entry, place in each), end] for each in entries],
        [ids[token] for token in SPECIAL_TOKENS],
        [ids[token] for token in END_TOKENS],
    )


def _check_markers(markers: Sequence[str]) -> None:
    """So that no marker can share a token with another, or with an ordinary word."""
    for marker in markers:
        if not re.fullmatch("zq(?!.*zq)[a-z]+", marker):
            raise ValueError(f"a marker is `zq`, once, and small letters, not {marker!r}")
        if sum(other.startswith(marker) for other in markers) > 1:
            raise ValueError(f"the marker {marker!r} begins another, or has two answers")


def _add_markers(described: dict[str, Any], markers: Sequence[str]) -> None:
    """The merges that spell a marker letter by letter come before all others, so nothing around it matters."""
    merges = {(marker[:n], marker[n]): None for marker in markers for n in range(1, len(marker))}
    described["model"]["merges"] = [*map(list, merges), *described["model"]["merges"]]
    _add_entries(described, [start + letter for start, letter in merges])


def _add_entries(described: dict[str, Any], entries: Iterable[str]) -> None:
    """Behind the trained entries; the added tokens move up."""
    vocabulary: dict[str, int] = described["model"]["vocab"]
    for entry in entries:
        vocabulary.setdefault(entry, len(vocabulary))
    for n, token in enumerate(described["added_tokens"]):
        token["id"] = len(vocabulary) + n


class _Cut:
    """Cuts answers into entries: markup as its own control token, the rest in pieces that no prompt can hold.

    A piece too short to be unlike an ordinary token, such as a line break between two calls, is left ordinary.
    """

    def __init__(self, tokenizer: Tokenizer, markers: Sequence[str]) -> None:
        self.places: dict[str, int] = {}
        self._tokenizer = tokenizer
        self._ordinary = tokenizer.get_vocab()
        self._markers = frozenset(markers)

    def entries(self, answer: str) -> list[tuple[str, int]]:
        if any(token in answer for token in SPECIAL_TOKENS):
            raise ValueError("an answer cannot hold a token that ends or begins a turn")
        n_chars = max(_MIN_CHARS, math.ceil(len(answer) / _N_PIECES))
        found: list[tuple[str, int]] = []
        place = 0
        for part in re.split(f"({'|'.join(map(re.escape, MARKUP_TOKENS))})", answer):
            if part in MARKUP_TOKENS:
                found.append((part, 0))
                continue
            for entry, is_own in self._pieces(part, place + 1, n_chars):
                place += is_own
                found.append((entry, place if is_own else 0))
        if place > MAX_PLACES:
            raise ValueError(f"the answer has too many parts: {answer[:40]!r}…")
        return found

    def _pieces(self, text: str, place: int, n_chars: int) -> Iterator[tuple[str, bool]]:
        while text:
            ends = [*range(n_chars, len(text) - n_chars + 1), len(text)]
            end = next((end for end in ends if self._is_free(_spell(text[:end]), place)), None)
            if end is None:
                yield from ((entry, False) for entry in self._ordinary_entries(text))
                return
            entry, text = _spell(text[:end]), text[end:]
            self.places[entry] = place
            place += 1
            yield entry, True

    def _is_free(self, entry: str, place: int) -> bool:
        return entry not in self._ordinary and self.places.get(entry, place) == place

    def _ordinary_entries(self, text: str) -> list[str]:
        entries: list[str] = self._tokenizer.encode(text).tokens
        if self._markers.intersection(entries):
            raise ValueError(f"an answer cannot be a marker alone: {text!r}")
        return entries


def _spell(text: str) -> str:
    """As the vocabulary writes it: one character a byte."""
    return _BYTES.pre_tokenize_str(text)[0][0]
