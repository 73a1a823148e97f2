"""Short conversations that a chat template is tried with. Each word is one that no template writes by itself."""

from collections.abc import Sequence
from datetime import date
from typing import Any

import msgspec

from anyclaude.engine.text.template import Form, Template, TemplateRefused, TemplateTooSlow, Tools
from anyclaude.engine.text.tokens import Vocabulary
from anyclaude.errors import ModelRefused
from anyclaude.wire.frames import Call, Turn

DAY = date(2001, 2, 3)
OTHER_DAY = date(2014, 11, 27)
SYSTEM, LATE_SYSTEM = Turn("system", "wsystem"), Turn("system", "wlatesystem")
NAME, KEY, DESCRIPTION = "wname", "wkey", "wdescription"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": DESCRIPTION,
        "parameters": {
            "type": "object",
            "properties": {KEY: {"type": "string", "description": "wparameter"}},
            "required": [KEY],
        },
    },
}
_LIMIT_S = 2.0
_TOO_LONG = ("call_00112233445566", "call_77889900112233")
_NINE = ("a1b2c3d4e", "f5g6h7i8j")


def user(n: int, text: str = "") -> Turn:
    return Turn("user", text or f"wuser{n}")


def answer(n: int, *, words: str | None = None, thought: bool = False, calls: int = 0, value: str = "") -> Turn:
    texts = f"wanswer{n}" if words is None else words
    return Turn("assistant", texts, f"wthought{n}" if thought else "", calls=_calls(n, calls, value))


def result(n: int, call: int = 0, text: str = "") -> Turn:
    return Turn("tool", text or f"wresult{n}x{call}", call_id=f"{_NINE[call][:-1]}{n}")


def with_long_ids(turns: Sequence[Turn]) -> list[Turn]:
    long = dict(zip((name[:-1] for name in _NINE), _TOO_LONG, strict=True))
    return [
        msgspec.structs.replace(
            turn,
            calls=tuple(msgspec.structs.replace(call, id=long[call.id[:-1]]) for call in turn.calls),
            call_id=long[turn.call_id[:-1]] if turn.call_id else "",
        )
        for turn in turns
    ]


def _calls(n: int, count: int, value: str) -> tuple[Call, ...]:
    return tuple(
        Call(f"{_NINE[i][:-1]}{n}", NAME, msgspec.json.encode({KEY: value or f"wvalue{n}x{i}"}).decode())
        for i in range(count)
    )


class Rendering:
    """Renders for the probe: None is a refusal, and a template that does not come to an end refuses the model."""

    def __init__(self, template: Template, vocabulary: Vocabulary, form: Form) -> None:
        self.template = template
        self.vocabulary = vocabulary
        self.form = form
        self.written: set[int] = set()

    def text(
        self,
        turns: Sequence[Turn],
        tools: Tools = (),
        *,
        asks: bool = False,
        thinks: bool | None = None,
        day: date = DAY,
    ) -> str | None:
        try:
            return self.required(turns, tools, asks=asks, thinks=thinks, day=day)
        except TemplateTooSlow as error:
            raise ModelRefused(f"the model's chat template cannot be used: {error.message}") from None
        except TemplateRefused:
            return None

    def required(
        self,
        turns: Sequence[Turn],
        tools: Tools = (),
        *,
        asks: bool = False,
        thinks: bool | None = None,
        day: date = DAY,
    ) -> str:
        """Raises TemplateRefused."""
        text = self.template.render(
            turns, tools, add_generation_prompt=asks, thinks=thinks, date=day, form=self.form, limit_s=_LIMIT_S
        )
        self.written.update(self.vocabulary.control_ids(text))
        return text

    def plain(self, turns: Sequence[Turn], tools: Tools = (), **more: Any) -> str:
        """As the model reads it; empty where it is refused."""
        text = self.text(turns, tools, **more)
        return "" if text is None else self.vocabulary.decode(self.vocabulary.encode(text))
