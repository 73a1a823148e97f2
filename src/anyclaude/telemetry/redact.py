"""Secrets taken out of what is written down: those that are known, and whatever has a well-known credential's shape.

Works on decoded values, so that no way of escaping hides one. It rather takes out too much than too little.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec
from msgspec import Struct

MIN_LENGTH = 8  # a "key" such as `ollama` protects nothing, and its word may stand anywhere
LONGEST_BLOCK = 16_384  # characters of a private key in PEM, with line numbers before its lines


class Shape(Struct, frozen=True):
    """`anchors` are searched for first: that costs almost nothing, and `pattern` is tried only where one stands. It
    matches whatever else begins inside of what it matches."""

    kind: str
    anchors: tuple[str, ...]
    pattern: re.Pattern[str]
    starts_word: bool = False


def _shape(kind: str, anchors: str, pattern: str, *, starts_word: bool = False) -> Shape:
    return Shape(kind, tuple(anchors.split("|")), re.compile(pattern), starts_word)


_PEM_NAME = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
PEM_BEGIN = re.compile(rf"-----BEGIN {_PEM_NAME}")
PEM_END = re.compile(rf"-----END {_PEM_NAME}")
SHAPES = (
    _shape("Anthropic key", "sk-ant-", r"sk-ant-[\w-]{8,}"),
    _shape("API key", "sk-", r"sk-[\w-]{20,}", starts_word=True),  # not the end of `task-`
    _shape("GitHub token", "ghp_|gho_|ghu_|ghs_|ghr_", r"gh[a-z]_\w{20,}"),
    _shape("GitHub token", "github_pat_", r"github_pat_\w{20,}"),
    _shape("AWS key id", "AKIA|ASIA", r"A[KS]IA[A-Z0-9]{16,}"),
    _shape("Slack token", "xox", r"xox[a-z]-[A-Za-z0-9-]{10,}"),
    _shape("Google key", "AIza", r"AIza[\w-]{30,}"),
    _shape("Hugging Face token", "hf_", r"hf_\w{20,}"),
    _shape("bearer token", "earer ", r"earer +[\w.~+/=-]{20,}"),
    _shape("JWT", "eyJ", r"eyJ[\w-]{8,8192}+(?:\.[\w-]*+){2,4}"),
    _shape(
        "private key",
        "-----BEGIN ",
        rf"{PEM_BEGIN.pattern}(?:[\s\S]{{0,{LONGEST_BLOCK}}}?{PEM_END.pattern}|[A-Za-z0-9+/=\s\\:,|→-]*)",
    ),
)
# What may stand before a word though it ends with a letter: an escape inside JSON text, a terminal's colour.
_ESCAPE = re.compile(r"(?:\\[bfnrt]|\\u[0-9a-fA-F]{4}|\[[0-9;]{0,12}m)\Z")


class Span(Struct, frozen=True):
    """From `start` to before `end`; `label` is what stands there instead."""

    start: int
    end: int
    label: str


class Redactor:
    """`known` are secrets that must never be written, whatever they look like."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        secrets = [secret for secret in known if len(secret) >= MIN_LENGTH]
        escaped = [msgspec.json.encode(secret).decode()[1:-1] for secret in secrets]  # in JSON that is inside a text
        self._known = tuple(dict.fromkeys([*secrets, *escaped]))

    @property
    def longest(self) -> int:
        """Characters of the longest known secret."""
        return max((len(form) for form in self._known), default=0)

    def text(self, text: str) -> str:
        return replaced(text, self.spans(text))

    def value(self, value: Any) -> Any:
        """The same JSON value with every secret replaced, in names too."""
        match value:
            case str():
                return self.text(value)
            case list():
                return [self.value(item) for item in cast("list[Any]", value)]
            case dict():
                fields = cast("dict[str, Any]", value)
                is_picture = fields.get("type") == "base64"  # any letters may stand next to each other in it
                return {
                    self.text(key): self._without_known(item) if is_picture and key == "data" else self.value(item)
                    for key, item in fields.items()
                }
            case _:
                return value

    def spans(self, text: str, start: int = 0) -> list[Span]:
        """Those that begin at `start` or after it, in order; none overlaps another."""
        found = [Span(at, at + len(form), "[secret]") for form in self._known for at in _places(text, form, start)]
        for shape in SHAPES:
            found += _shaped(text, shape, start)
        return _merged(found)

    def _without_known(self, value: Any) -> Any:
        for form in self._known if isinstance(value, str) else ():
            value = value.replace(form, "[secret]")
        return value


def replaced(text: str, spans: Iterable[Span]) -> str:
    parts: list[str] = []
    position = 0
    for span in spans:
        parts += [text[position : span.start], span.label]
        position = span.end
    return "".join((*parts, text[position:])) if parts else text


def _places(text: str, part: str, start: int) -> Iterator[int]:
    at = text.find(part, start)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _shaped(text: str, shape: Shape, start: int) -> Iterator[Span]:
    for anchor in shape.anchors:
        end = 0
        for at in _places(text, anchor, start):
            if at + len(anchor) <= end or (shape.starts_word and not _starts_word(text, at)):
                continue
            if match := shape.pattern.match(text, at):
                end = match.end()
                yield Span(at, end, f"[secret: {shape.kind}]")


def _starts_word(text: str, at: int) -> bool:
    return at == 0 or not text[at - 1].islower() or _ESCAPE.search(text, max(0, at - 16), at) is not None


def _merged(spans: list[Span]) -> list[Span]:
    """Of spans that overlap one, over all that they cover, with the first one's label."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            span = Span(last.start, max(last.end, span.end), last.label)
        merged.append(span)
    return merged
