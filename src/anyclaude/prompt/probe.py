"""Whether a template renders a whole prompt: some drop system turns, thinking or tools in silence."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

import msgspec

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.sections import Section, sections_of

_SHOWN = 48  # characters at each end of a section: templates trim, indent and escape, but seldom rewrite words
_ESCAPED = re.compile(r"[\x00-\x1f\"\\<>&']+")  # by one template or another


def vanished(prompt: Prompt, rendering: str) -> tuple[Section, ...]:
    """The sections of which no part is in the rendering. Pictures are not looked for."""
    return tuple(section for section in sections_of(prompt) if not _is_rendered(section, rendering))


def _is_rendered(section: Section, rendering: str) -> bool:
    if section.kind == "image":
        return True
    return any(_has(rendering, text) for text in _witnesses(section))


def _witnesses(section: Section) -> list[str]:
    """Texts of which one must be there."""
    match section.kind:
        case "tool" | "late_tool" if section.text != section.tool:
            return [_longest_words([msgspec.json.decode(section.text)["description"]]) or section.tool]
        case "tool_use":
            return [_longest_words(_texts(msgspec.json.decode(section.text.partition("\n")[2]))) or section.tool]
        case "tool_result":
            return _ends(section.text.partition("\n")[2])
        case _:
            return _ends(section.text)


def _longest_words(texts: Iterable[str]) -> str:
    """A tool's name proves nothing: calls, the list of tools and other tools' descriptions share it."""
    words = (word.strip() for text in texts for word in _ESCAPED.split(text))
    return max(words, key=len, default="")[:_SHOWN].strip()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        fields = cast("dict[str, Any] | list[Any]", value)
        for inner in fields.values() if isinstance(fields, dict) else fields:
            yield from _texts(inner)


def _ends(text: str) -> list[str]:
    words = text.strip()
    return [words[:_SHOWN].strip(), words[-_SHOWN:].strip()]


def _has(rendering: str, text: str) -> bool:
    escaped = (json.dumps(text, ensure_ascii=is_ascii)[1:-1] for is_ascii in (True, False))
    return text in rendering or any(each in rendering for each in escaped)
