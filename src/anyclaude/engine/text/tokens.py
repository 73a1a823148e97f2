"""A model's vocabulary: text to token ids and back.

Control ids come from the template alone. The template's text is split at control tokens here; what stands between is
encoded by a copy of the tokenizer that has none, so content yields no control id whatever it holds.
"""

import itertools
import json
import re
import secrets
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import cast

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Tokenizer

from anyclaude.engine.text.added_tokens import AddedToken, Table, added_tokens, end_ids, read_table, text_of
from anyclaude.engine.text.decoding import StreamDecoder, invents_space, token_bytes
from anyclaude.engine.text.shield import Shield, trie_pattern
from anyclaude.errors import ModelRefused

__all__ = ["Ids", "StreamDecoder", "Vocabulary", "joined"]

Ids = NDArray[np.uint32]

_LONG = 1_024
_MAX_REMEMBERED = 16 << 20  # characters


class Vocabulary:
    """`added` are all control tokens by their text, `special` the ids that no text of a person's stands for, `end_ids`
    what ends an answer as far as the files say. Used by one thread."""

    def __init__(self, tokenizer: Table, tokens: Sequence[AddedToken], config: Table, ends: frozenset[int]) -> None:
        self._plain = _without_added(tokenizer)
        self.added = {token.text: token.id for token in tokens if not token.is_plain}
        self.special = frozenset(token.id for token in tokens if token.is_special)
        self.bos, self.eos = text_of(config.get("bos_token")), text_of(config.get("eos_token"))
        self.end_ids = ends | ({self.added[self.eos]} if self.eos in self.added else set[int]())
        self.size = _size(tokenizer, tokens)
        self.digest = sha256(json.dumps([tokenizer, config], sort_keys=True).encode("utf-8", "replace")).digest()
        self.n_chars_encoded = 0
        self._strips = {token.text: (token.lstrip, token.rstrip) for token in tokens if token.lstrip or token.rstrip}
        self._blanks = {token.text: token.id for token in tokens if token.is_plain}
        self._control_pattern = _splitter(self.added)
        self._blank_pattern = _splitter(self._blanks)
        self._shield = Shield(self.added)
        self._texts = {token.id: token.text for token in tokens}
        self._token_bytes = token_bytes(tokenizer.get("decoder"), self._plain.id_to_token)
        self._trims_start = invents_space(tokenizer.get("decoder"))
        unknown = cast("Table", tokenizer.get("model") or {}).get("unk_token")
        reachable = [i for text, i in self.added.items() if text != unknown and self._plain.id_to_token(i) is not None]
        self._reachable = np.array(reachable, np.uint32)
        self._remembered = OrderedDict[tuple[str, bool], Ids]()
        self._n_remembered = 0
        # A text before it decides whether some tokenizers invent a space: each segment stands behind this token, of
        # which no content can know.
        self._before = f"<|{secrets.token_hex(16)}|>"
        self._plain.add_special_tokens([tokenizers.AddedToken(self._before, normalized=False, special=True)])

    @classmethod
    def read(cls, folder: Path) -> "Vocabulary":
        """Raises ModelRefused."""
        tokenizer = read_table(folder, "tokenizer.json")
        if tokenizer is None:
            raise ModelRefused(f"{folder} has no tokenizer.json; take a conversion that has one")
        config = read_table(folder, "tokenizer_config.json") or {}
        tokens = added_tokens(tokenizer, config)
        return cls(tokenizer, tokens, config, end_ids(folder, _size(tokenizer, tokens)))

    def shield(self, text: str, *, is_whole: bool = True) -> str:
        return self._shield.put_on(text, is_whole=is_whole)

    def unshield(self, text: str) -> str:
        return self._shield.take_off(text)

    def encode(self, rendered: str, *, is_start: bool = True) -> Ids:
        """Of a template's text with shielded content. Not `is_start`: other tokens stand before it."""
        return joined(self._segments(rendered, is_start=is_start))

    def control_ids(self, rendered: str) -> list[int]:
        """Those that the text itself, without its content, stands for."""
        return [self.added[text] for text in self._control_pattern.findall(rendered)]

    def pieces(self, rendered: str) -> list[str]:
        """The text cut at its control tokens: every second piece is one."""
        return self._control_pattern.split(rendered)

    def decoder(self) -> StreamDecoder:
        return StreamDecoder(self._token_bytes, self._texts, trims_start=self._trims_start)

    def decode(self, ids: Iterable[int]) -> str:
        decoder = self.decoder()
        return "".join([decoder.feed(int(token)) for token in ids]) + decoder.finish()

    def _segments(self, rendered: str, *, is_start: bool) -> Iterator[Ids]:
        parts = self._control_pattern.split(rendered)
        for n in range(0, len(parts), 2):
            text = parts[n]
            if n and self._strips.get(parts[n - 1], (False, False))[1]:
                text = text.lstrip()
            if n + 1 < len(parts) and self._strips.get(parts[n + 1], (False, False))[0]:
                text = text.rstrip()
            yield self._content(self.unshield(text), is_start=is_start and n == 0)
            if n + 1 < len(parts):
                yield np.array([self.added[parts[n + 1]]], np.uint32)

    def _content(self, text: str, *, is_start: bool) -> Ids:
        if len(text) < _LONG:
            return self._encoded(text, is_start=is_start)
        found = self._remembered.pop((text, is_start), None)
        if found is None:
            found = self._encoded(text, is_start=is_start)
            self._n_remembered += len(text)
        self._remembered[text, is_start] = found
        while self._n_remembered > _MAX_REMEMBERED and len(self._remembered) > 1:
            (oldest, _), _ = self._remembered.popitem(last=False)
            self._n_remembered -= len(oldest)
        return found

    def _encoded(self, text: str, *, is_start: bool) -> Ids:
        self.n_chars_encoded += len(text)
        parts = self._blank_pattern.split(text) if self._blanks else [text]
        ids = [self._words(part, is_start=is_start and n == 0) for n, part in enumerate(parts) if n % 2 == 0]
        blanks = [np.array([self._blanks[part]], np.uint32) for part in parts[1::2]]
        return joined(item for pair in zip(ids, [*blanks, ids[0][:0]], strict=True) for item in pair)

    def _words(self, text: str, *, is_start: bool) -> Ids:
        if not text:
            return np.empty(0, np.uint32)
        with _library_errors("the tokenizer fails"):
            encoding = self._plain.encode(text if is_start else self._before + text, add_special_tokens=False)
        ids = np.array(encoding.ids, np.uint32)[0 if is_start else 1 :]
        if self._reachable.size and np.isin(ids, self._reachable).any():
            return self._broken_up(text, is_start=is_start)
        return ids

    def _broken_up(self, text: str, *, is_start: bool) -> Ids:
        """The vocabulary itself spells a control token: the text is encoded in parts that do not."""
        if len(text) == 1:
            return np.empty(0, np.uint32)
        inside = [match.start() + 1 for match in self._control_pattern.finditer(text) if match.start() + 1 < len(text)]
        cuts = [0, *(inside or [len(text) // 2]), len(text)]
        return joined(self._words(text[a:b], is_start=is_start and a == 0) for a, b in itertools.pairwise(cuts))


def joined(parts: Iterable[Ids]) -> Ids:
    listed = list(parts)
    return np.concatenate(listed) if listed else np.empty(0, np.uint32)


def _without_added(tokenizer: Table) -> Tokenizer:
    model = dict(cast("Table", tokenizer.get("model") or {}))
    model["dropout"] = None
    bare = tokenizer | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None, "model": model}
    with _library_errors("tokenizer.json is no tokenizer that is known here"):
        return Tokenizer.from_str(json.dumps(bare))


@contextmanager
def _library_errors(what: str) -> Generator[None]:
    """The library raises plain `Exception`, and where Rust panics a class that it does not name."""
    try:
        yield
    except BaseException as error:
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise ModelRefused(f"{what}: {str(error)[:200]}") from None


def _size(tokenizer: Table, tokens: Sequence[AddedToken]) -> int:
    vocabulary: object = cast("Table", tokenizer.get("model") or {}).get("vocab") or {}
    if isinstance(vocabulary, list):
        ids = [len(cast("list[object]", vocabulary)) - 1]
    else:
        ids = [value for value in cast("dict[str, object]", vocabulary).values() if type(value) is int]
    return max([-1, *ids, *(token.id for token in tokens)]) + 1


def _splitter(texts: Iterable[str]) -> re.Pattern[str]:
    return re.compile(f"({trie_pattern(texts) or '(?!)'})")
