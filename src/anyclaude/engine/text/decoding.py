"""Tokens to text as they come: what is given out is whole characters, and control tokens as their text.

Knows byte-level vocabularies and those in the manner of sentencepiece; every other kind is refused.
"""

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

from anyclaude.errors import ModelRefused

TokenBytes = Callable[[int], bytes]
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_MARK = "\u2581"


class StreamDecoder:
    """`trims_start`: the vocabulary invents a space before a text's first word."""

    def __init__(self, token_bytes: TokenBytes, control: Mapping[int, str], *, trims_start: bool) -> None:
        self._token_bytes = token_bytes
        self._control = control
        self._trims = trims_start
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, token: int) -> str:
        text = self._control.get(token)
        if text is not None:
            self._trims = False
            return self.finish() + text
        data = self._token_bytes(token)
        if self._trims and data:
            self._trims = False
            data = data.removeprefix(b" ")
        return self._characters.decode(data)

    def finish(self) -> str:
        """What was held back: the start of a character that never came to its end."""
        text = self._characters.decode(b"", True)
        self._characters.reset()
        return text


def token_bytes(decoder: object, token_text: Callable[[int], str | None]) -> TokenBytes:
    """`decoder` is that of tokenizer.json. Raises ModelRefused."""
    kinds = {step.get("type") for step in _steps(decoder)}
    if "ByteLevel" in kinds:
        return _remembered(token_text, _byte_level)
    if "Metaspace" in kinds or any(_replaces_word_mark(step) for step in _steps(decoder)):
        return _remembered(token_text, _word_marked)
    raise ModelRefused(
        f"the tokenizer writes words in a way that is not known here ({', '.join(map(str, kinds)) or 'none'})"
    )


def invents_space(decoder: object) -> bool:
    for step in _steps(decoder):
        if step.get("type") == "Strip" and step.get("content") == " " and step.get("start"):
            return True
        if step.get("type") == "Metaspace":
            return step.get("prepend_scheme", "always") != "never" and step.get("add_prefix_space") is not False
    return False


def _steps(decoder: object) -> Iterator[dict[str, Any]]:
    if not isinstance(decoder, dict):
        return
    step = cast("dict[str, Any]", decoder)
    if step.get("type") == "Sequence":
        for inner in cast("list[object]", step.get("decoders") or []):
            yield from _steps(inner)
    else:
        yield step


def _replaces_word_mark(step: dict[str, Any]) -> bool:
    return step.get("type") == "Replace" and step.get("content") == " " and _WORD_MARK in str(step.get("pattern"))


def _remembered(token_text: Callable[[int], str | None], read: Callable[[str], bytes]) -> TokenBytes:
    known: dict[int, bytes] = {}

    def found(token: int) -> bytes:
        if token not in known:
            known[token] = read(token_text(token) or "")
        return known[token]

    return found


def _byte_level(text: str) -> bytes:
    try:
        return bytes(_BYTE_OF[char] for char in text)
    except KeyError:
        return text.encode()


def _word_marked(text: str) -> bytes:
    if byte := _BYTE.fullmatch(text):
        return bytes.fromhex(byte[1])
    return text.replace(_WORD_MARK, " ").encode()


def _byte_characters() -> dict[str, int]:
    """How byte-level vocabularies write bytes: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
