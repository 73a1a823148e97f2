"""Content that stays content: control texts in it are swapped for private-use characters while a template is rendered.

Exact for any input: `take_off` undoes `put_on`, private-use characters in the content included. A text at the edge of
which a control text could be completed by what a template writes beside it loses that possibility too.
"""

import re
from collections.abc import Iterable, Iterator

from anyclaude.errors import ModelRefused

VOCABULARY_PLANE = 0xF0000
TEMPLATE_PLANE = 0x100000
_MAX_SIGNS = 60_000
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


class Shield:
    """`markers` are the texts that content must never be read as; signs for them are taken from one private plane."""

    def __init__(self, markers: Iterable[str], plane: int = VOCABULARY_PLANE) -> None:
        self._markers = sorted({marker for marker in markers if marker})
        parts = sorted({char for marker in self._markers for char in marker})
        signs = [*self._markers, *(part for part in parts if part not in self._markers)]
        if len(signs) > _MAX_SIGNS:
            raise ModelRefused(f"the tokenizer has {len(self._markers)} added tokens, more than can be told apart")
        self._escape = chr(plane)
        self._sign_of = {text: chr(plane + n) for n, text in enumerate(signs, start=1)}
        self._text_of = {sign: text for text, sign in self._sign_of.items()}
        own = f"[{self._escape}-{chr(plane + len(signs))}]"
        self._found = re.compile("|".join(filter(None, [trie_pattern(self._markers), own])))
        self._worn = re.compile(f"{self._escape}({own})|{own}")
        self._heads = {marker[n:] for marker in self._markers for n in range(1, len(marker))}
        self._tails = {marker[:n] for marker in self._markers for n in range(1, len(marker))}
        self._longest = max(map(len, self._markers), default=0)
        self._joined = "\0".join(self._markers)

    def put_on(self, text: str, *, is_whole: bool = True) -> str:
        """`is_whole` False: a name that templates look up; it stays legible where it is part of a control text."""
        if not text.isascii():
            text = _LONE_SURROGATES.sub("\ufffd", text)
        head, tail = self._open_edges(text, is_whole=is_whole)
        if head or tail:
            middle = text[head : len(text) - tail]
            return (
                self._edge(text[:head]) + self._found.sub(self._signed, middle) + self._edge(text[len(text) - tail :])
            )
        return self._found.sub(self._signed, text)

    def take_off(self, text: str) -> str:
        return text if text.isascii() else self._worn.sub(self._read, text)

    def _open_edges(self, text: str, *, is_whole: bool) -> tuple[int, int]:
        """How many characters at the start and at the end (none or one) could be part of a control text."""
        if not text:
            return 0, 0
        lengths = range(1, min(self._longest, len(text) + 1))
        head = any(text[:n] in self._heads for n in lengths)
        head = head or (is_whole and len(text) < self._longest and text in self._joined)
        tail = len(text) > head and any(text[-n:] in self._tails for n in lengths)
        return int(head), int(tail)

    def _edge(self, char: str) -> str:
        return self._sign_of.get(char) or self._found.sub(self._signed, char)

    def _signed(self, match: re.Match[str]) -> str:
        return self._sign_of.get(match[0]) or self._escape + match[0]

    def _read(self, match: re.Match[str]) -> str:
        return match[1] or self._text_of.get(match[0], "")


def trie_pattern(texts: Iterable[str]) -> str:
    """A pattern of the longest of the texts at a place, whose time does not grow with their number."""
    return _branches(sorted(set(texts)))


def _branches(texts: list[str]) -> str:
    choices: list[str] = []
    for group in _by_first(texts):
        shared = _shared(group)
        rests = [text[len(shared) :] for text in group]
        inner = _branches([rest for rest in rests if rest])
        optional = "?" if inner and "" in rests else ""
        choices.append(re.escape(shared) + (f"(?:{inner}){optional}" if inner else ""))
    return "|".join(choices)


def _by_first(texts: list[str]) -> Iterator[list[str]]:
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(text[0], []).append(text)
    yield from groups.values()


def _shared(texts: list[str]) -> str:
    first, last = min(texts), max(texts)
    n = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:n]
