"""What was found out about a chat template, by rendering with it."""

from typing import Literal

from msgspec import Struct

from anyclaude.engine.text.template import Form
from anyclaude.wire.frames import Capabilities

DeltaRule = Literal["with tools", "without tools", "whole"]


class Shape(Struct, frozen=True, kw_only=True):
    """
    delta       how new turns are appended to what was rendered: as they read where tools are given, where none are, or
                not at all (the whole prompt is rendered every time)
    has_system  whether new turns are rendered behind a stand-in for the system turn, which some templates would repeat
    call_end    what ends a turn that calls tools; empty where nothing does, and `call_close` ends the call itself
    thinks_at   what a request's `thinks` changes: nothing, the generation prompt only, or the prompt before it
    think_open  surrounds reasoning, with `think_close`; None where the template knows none
    words_open  what an answer writes before its words, if anything
    answer_ids  control ids that an answer may hold, those that end it included
    end_ids     control ids that end an answer
    masked_ids  control ids that generation must never produce: role markers and other special tokens
    classes     what kind of template it is, for a person
    loses       kinds of parts that do not reach the model, or not as they are
    """

    form: Form = Form()
    delta: DeltaRule = "whole"
    has_system: bool = True
    call_end: str = ""
    call_close: str = ""
    thinks_at: Literal["nowhere", "generation", "head"] = "head"
    think_open: str | None = None
    think_close: str | None = None
    words_open: str = ""
    answer_ids: frozenset[int] = frozenset()
    end_ids: frozenset[int] = frozenset()
    masked_ids: frozenset[int] = frozenset()
    classes: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()
    alternates: bool = False
    one_call: bool = False
    nine_ids: bool = False
    system_in_user: bool = False
    calls_tools: bool = False

    @property
    def thinks(self) -> bool:
        return self.think_close is not None

    def begins_in_reasoning(self, generation_prompt: str) -> bool:
        """Whether the prompt itself opens the reasoning, so that the answer starts inside it."""
        if self.think_open is None:
            return False
        opened = generation_prompt.rfind(self.think_open)
        return opened >= 0 and (self.think_close is None or self.think_close not in generation_prompt[opened:])


def capabilities(shape: Shape, window: int) -> Capabilities:
    return Capabilities(
        window=window,
        alternates=shape.alternates,
        one_call=shape.one_call,
        nine_ids=shape.nine_ids,
        system_in_user=shape.system_in_user,
        thinks=shape.thinks,
        calls_tools=shape.calls_tools,
        classes=shape.classes,
        loses=shape.loses,
    )
