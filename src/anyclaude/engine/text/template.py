"""A model's chat template: turns to the text that the model reads.

Content goes in shielded, so that neither the tokenizer nor the template takes words of it for its own. The template
gets an allow-list of variables, runs in a sandbox with bounds, and what it does not take is TemplateRefused.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

from jinja2 import nodes
from jinja2.exceptions import TemplateError
from msgspec import Struct

from anyclaude.engine.text.added_tokens import read_table, read_text
from anyclaude.engine.text.sandbox import OutOfBounds, Said, Sandbox, formatted_date, within
from anyclaude.engine.text.shield import TEMPLATE_PLANE, Shield
from anyclaude.engine.text.tokens import Vocabulary
from anyclaude.errors import InvalidRequest, ModelRefused
from anyclaude.wire.frames import Call, Turn

MAX_SOURCE = 1 << 20
LIMIT_S = 10.0
_MARKER = re.compile(r"[<\[].+[>\]]|</?\w+|<\|")
_LOOKS_INTO = frozenset({"split", "rsplit", "partition", "startswith", "endswith", "replace", "strip", "find", "index"})
_FREE_TEXT = frozenset({"description", "title"})

Tools = Sequence[Mapping[str, Any]]


class TemplateRefused(InvalidRequest):
    """The model's chat template does not take this conversation."""


class TemplateTooSlow(TemplateRefused):
    """It was stopped at its bounds of time or size."""


class Form(Struct, frozen=True):
    """How a template wants to be given what the wire leaves open."""

    arguments: Literal["object", "text"] = "object"
    reasoning: Literal["reasoning_content", "thinking", "reasoning"] = "reasoning_content"


_USUAL = Form()


class Template:
    """`sources` by name, as some models have one for tools. Used by one thread. Raises ModelRefused."""

    def __init__(self, sources: Mapping[str, str], vocabulary: Vocabulary) -> None:
        self.source = sources["default"]
        self._vocabulary = vocabulary
        self._sandbox = Sandbox()
        self._compiled = {name: self._compile(source) for name, source in sources.items()}
        self._markers = Shield(self._words_it_looks_for(sources.values()), TEMPLATE_PLANE)
        self.digest = sha256(json.dumps(dict(sources), sort_keys=True).encode("utf-8", "replace")).digest()
        self.n_chars_rendered = 0

    @classmethod
    def read(cls, folder: Path, vocabulary: Vocabulary) -> "Template":
        """Raises ModelRefused."""
        sources = _sources(folder)
        if "default" not in sources:
            raise ModelRefused(f"{folder} has no chat template; take an instruct or chat version of the model")
        return cls(sources, vocabulary)

    def render(
        self,
        turns: Sequence[Turn],
        tools: Tools = (),
        *,
        add_generation_prompt: bool,
        thinks: bool | None,
        date: date,
        form: Form = _USUAL,
        limit_s: float = LIMIT_S,
    ) -> str:
        """Its content is still shielded. Raises TemplateRefused."""
        variables: dict[str, Any] = {
            "messages": list(self._messages(turns, form)),
            "tools": [self._shielded(tool, is_whole=False) for tool in tools] or None,
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._vocabulary.bos or "",
            "eos_token": self._vocabulary.eos or "",
            "strftime_now": partial(formatted_date, date),
        }
        if thinks is not None:
            variables["enable_thinking"] = thinks
        text = self._rendered("tool_use" if tools and "tool_use" in self._compiled else "default", variables, limit_s)
        self.n_chars_rendered += len(text)
        return self._markers.take_off(text)

    def _rendered(self, name: str, variables: dict[str, Any], limit_s: float) -> str:
        most = (1 << 20) + 8 * sum(map(_size, variables["messages"])) + 8 * _size(variables["tools"])

        def run() -> str:
            parts: list[str] = []
            left = most
            for part in self._compiled[name].generate(variables):
                left -= len(part)
                if left < 0:
                    raise OutOfBounds("writes much more than it was given")
                parts.append(part)
            return "".join(parts)

        try:
            return within(limit_s, run)
        except Said as error:
            raise TemplateRefused(error.message or "it does not say why") from None
        except (OutOfBounds, MemoryError) as error:
            raise TemplateTooSlow(f"it was stopped: it {error or 'needs too much memory'}") from None
        except _FAULTS as error:
            raise TemplateRefused(f"it fails with {type(error).__name__}") from error

    def _compile(self, source: str) -> Any:
        if len(source) > MAX_SOURCE:
            raise ModelRefused(f"the chat template has {len(source):,} characters: no template is that large")
        try:
            return within(LIMIT_S, lambda: self._sandbox.from_string(source))
        except OutOfBounds as error:
            raise ModelRefused(f"the chat template cannot be read: it {error}") from None
        except _FAULTS as error:
            raise ModelRefused(
                f"the chat template cannot be read: {type(error).__name__}: {str(error)[:200]}"
            ) from None

    def _words_it_looks_for(self, sources: Iterable[str]) -> set[str]:
        found = {word for source in sources for word in _looked_for(self._sandbox.parse(source))}
        return {word for word in found if _MARKER.fullmatch(word) and word not in self._vocabulary.added}

    def _messages(self, turns: Sequence[Turn], form: Form) -> Iterator[dict[str, Any]]:
        names: dict[str, str] = {}
        for turn in turns:
            message: dict[str, Any] = {"role": turn.role, "content": self._text(turn.content)}
            if turn.reasoning:
                message[form.reasoning] = self._text(turn.reasoning)
            if turn.calls:
                names |= {call.id: call.name for call in turn.calls}
                message["tool_calls"] = [self._call(call, form) for call in turn.calls]
            if turn.role == "tool":
                message["tool_call_id"] = self._text(turn.call_id)
                if turn.call_id in names:
                    message["name"] = self._text(names[turn.call_id], is_whole=False)
            yield message

    def _call(self, call: Call, form: Form) -> dict[str, Any]:
        name = self._text(call.name, is_whole=False)
        function = {"name": name, "arguments": self._arguments(call.arguments, form)}
        return {"id": self._text(call.id), "type": "function", "function": function}

    def _arguments(self, text: str, form: Form) -> Any:
        if form.arguments == "text":
            return self._text(text)
        try:
            value: object = json.loads(text or "{}")
        except (ValueError, RecursionError):
            raise TemplateRefused("the arguments of a tool call are no JSON") from None
        return self._shielded(value, is_whole=True)

    def _text(self, text: str, *, is_whole: bool = True) -> str:
        shielded = self._vocabulary.shield(text, is_whole=is_whole)
        return self._markers.put_on(shielded, is_whole=False)

    def _shielded(self, value: object, *, is_whole: bool) -> Any:
        """Keys and other names that a template may look up stay legible; free text does not need to."""
        if isinstance(value, str):
            return self._text(value, is_whole=is_whole)
        if isinstance(value, dict):
            items = cast("dict[str, object]", value).items()
            return {
                self._text(key, is_whole=False): self._shielded(
                    inner, is_whole=is_whole or (key in _FREE_TEXT and isinstance(inner, str))
                )
                for key, inner in items
            }
        if isinstance(value, list | tuple):
            return [self._shielded(inner, is_whole=is_whole) for inner in cast("list[object]", value)]
        return value


_FAULTS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    SyntaxError,
)


def _sources(folder: Path) -> dict[str, str]:
    if (text := read_text(folder, "chat_template.jinja")) is not None:
        return {"default": text}
    listed: object = (read_table(folder, "tokenizer_config.json") or {}).get("chat_template")
    if listed is None:
        listed = (read_table(folder, "chat_template.json") or {}).get("chat_template")
    if isinstance(listed, str):
        return {"default": listed}
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    tables = [cast("dict[str, object]", entry) for entry in entries if isinstance(entry, dict)]
    named = {str(table.get("name")): str(table.get("template")) for table in tables}
    if "default" not in named and named:
        named["default"] = next(iter(named.values()))
    return named


def _looked_for(tree: nodes.Template) -> Iterator[str]:
    """Texts that the template searches for in something: what it must not find in content."""
    for node in tree.find_all((nodes.Compare, nodes.Call, nodes.Filter)):
        if isinstance(node, nodes.Compare):
            if any(operand.op in ("in", "notin") for operand in node.ops):
                yield from _constants(node)
        elif isinstance(node, nodes.Filter):
            if node.name == "replace":
                yield from _constants(node)
        elif isinstance(node.node, nodes.Getattr) and node.node.attr in _LOOKS_INTO:
            for argument in node.args:
                yield from _constants(argument)


def _constants(node: nodes.Node) -> Iterator[str]:
    found = [node] if isinstance(node, nodes.Const) else node.find_all(nodes.Const)
    for constant in found:
        if isinstance(constant.value, str):
            yield constant.value


def _size(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _size(inner) + 8 for key, inner in cast("dict[str, object]", value).items())
    if isinstance(value, list):
        return sum(map(_size, cast("list[object]", value)))
    return 16
