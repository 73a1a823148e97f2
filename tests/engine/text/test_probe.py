"""What is found out about a template by rendering with it, for each of the eight kinds and for hostile ones."""

import pytest

from anyclaude.engine.text.probe import Shape, capabilities, probe
from anyclaude.engine.text.template import Template
from anyclaude.errors import ModelRefused
from tests.engine.shapes import CHATML, FAMILIES, MISTRAL, QWEN3, Model, model, vocabulary_of
from tests.engine.tokenizers_made import vocabulary, word_marked_json

EARLIER = "reasoning of earlier turns"
CLASSES = {
    "chatml": {"append_only"},
    "qwen3": {"drops_thinking"},
    "qwen3-coder": {"append_only"},
    "llama3": {"append_only", "dated", "one_call", "trims"},
    "mistral": {"moves_tools", "nine_ids", "strict_roles"},
    "glm4": {"drops_thinking"},
    "gpt-oss": {"dated", "drops_calls", "drops_thinking"},
    "deepseek": {"append_only", "hoists_system"},
}
LOSES = {
    "chatml": {"reasoning"},
    "qwen3": {EARLIER},
    "qwen3-coder": {"reasoning"},
    "llama3": {
        *("reasoning", "calls after a turn's first", "text beside calls"),
        *(f"white space at the ends of {kind}" for kind in ("user text", "answers", "system text")),
    },
    "mistral": {"reasoning", "text beside calls", "white space at the ends of answers"},
    "glm4": {EARLIER, "white space at the ends of answers", "white space at the ends of reasoning"},
    "gpt-oss": {EARLIER, "calls after a turn's first"},
    "deepseek": {"reasoning", "tools"},
}
ANSWERS = {
    "chatml": {"<|im_end|>", "<|endoftext|>", "<tool_call>", "</tool_call>"},
    "mistral": {"</s>", "[TOOL_CALLS]"},
    "glm4": {
        *("<|endoftext|>", "<|user|>", "<|observation|>", "<think>", "</think>", "<tool_call>", "</tool_call>"),
        *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
    },
    "gpt-oss": {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>", "<|endoftext|>"},
}
ALWAYS = {"<|constrain|>", "<|python_tag|>", "<|eom_id|>"}
MARKS = {
    "chatml": (None, None),
    "qwen3": ("<think>", "</think>"),
    "qwen3-coder": (None, None),
    "llama3": (None, None),
    "mistral": (None, None),
    "glm4": ("<think>", "</think>"),
    "gpt-oss": ("<|channel|>analysis<|message|>", "<|end|>"),
    "deepseek": ("<think>", "</think>"),
}
families = pytest.mark.parametrize("family", FAMILIES)


def names(known: Model, ids: frozenset[int]) -> set[str]:
    return {text for text, token in known.vocabulary.added.items() if token in ids}


def probed(source: str, family: str = "chatml") -> Shape:
    known = vocabulary_of(family)
    return probe(Template({"default": source}, known), known)


@families
def test_each_kind_is_told_by_what_it_does_and_what_it_loses(family: str) -> None:
    shape = model(family).shape
    assert set(shape.classes) == CLASSES[family]
    assert set(shape.loses) == LOSES[family]


@families
def test_new_turns_can_be_appended_to_each_kind(family: str) -> None:
    assert model(family).shape.delta == ("without tools" if family == "mistral" else "with tools")


@families
def test_reasoning_is_found_by_its_marks(family: str) -> None:
    shape = model(family).shape
    assert (shape.think_open, shape.think_close) == MARKS[family]
    assert shape.thinks == (shape.think_close is not None)


@pytest.mark.parametrize("family", ANSWERS)
def test_an_answer_may_hold_its_own_control_tokens_and_no_role_marker(family: str) -> None:
    known = model(family)
    assert names(known, known.shape.answer_ids) == ANSWERS[family] | ALWAYS


@families
def test_generation_is_kept_from_every_special_token_that_no_answer_holds(family: str) -> None:
    known = model(family)
    shape = known.shape
    assert not shape.masked_ids & shape.answer_ids
    assert known.vocabulary.special <= shape.masked_ids | shape.answer_ids
    assert shape.end_ids <= shape.answer_ids
    assert known.vocabulary.end_ids <= shape.end_ids


def test_marks_between_an_answer_s_parts_do_not_end_it() -> None:
    known = model("gpt-oss")
    assert names(known, known.shape.end_ids) == {"<|return|>", "<|call|>", "<|endoftext|>"}
    assert known.shape.words_open == "<|channel|>final<|message|>"


@families
def test_each_kind_is_given_arguments_and_reasoning_in_the_form_it_takes(family: str) -> None:
    form = model(family).shape.form
    assert form.arguments == ("text" if family == "deepseek" else "object")
    assert form.reasoning == ("thinking" if family == "gpt-oss" else "reasoning_content")


def test_what_thinking_changes_is_found() -> None:
    places = {family: model(family).shape.thinks_at for family in FAMILIES}
    found = {family: place for family, place in places.items() if place != "nowhere"}
    assert found == {"qwen3": "generation", "deepseek": "generation", "glm4": "head"}


def test_the_server_is_told_what_prompts_must_be_fitted_to() -> None:
    told = {family: capabilities(model(family).shape, 4_096) for family in FAMILIES}
    assert {family for family, each in told.items() if each.one_call} == {"llama3", "gpt-oss"}
    assert {family for family, each in told.items() if each.alternates} == {"mistral"}
    assert {family for family, each in told.items() if each.nine_ids} == {"mistral"}
    assert {family for family, each in told.items() if each.thinks} == {"qwen3", "glm4", "gpt-oss", "deepseek"}
    assert {family for family, each in told.items() if not each.calls_tools} == {"deepseek"}
    assert not any(each.system_in_user for each in told.values())
    assert all(each.window == 4_096 and each.classes for each in told.values())


def test_a_template_that_refuses_system_gets_its_words_in_the_user_s_turn() -> None:
    shape = probed("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML)
    assert shape.system_in_user
    assert "no_system" in shape.classes
    assert shape.delta == "with tools"


def test_a_template_that_repeats_the_system_text_is_appended_to_without_it() -> None:
    moved = MISTRAL.replace("{{ '[SYSTEM_PROMPT]' + system + '[/SYSTEM_PROMPT]' }}", "").replace(
        "{{- '[INST] ' + message.content",
        "{{- '[INST] ' + (system + ' ' if system and loop.last else '') + message.content",
    )
    shape = probed(moved, "mistral")
    assert (shape.delta, shape.has_system) == ("without tools", False)


def test_a_template_that_opens_the_reasoning_itself_is_seen_to() -> None:
    plain = "{{- '<|im_start|>assistant\\n' }}\n  {%- if enable"
    opens = QWEN3.replace(plain, plain.replace("assistant\\n", "assistant\\n<think>\\n"))
    shape = probed(opens)
    assert (shape.think_open, shape.think_close) == ("<think>", "</think>")
    assert shape.begins_in_reasoning("<|im_start|>assistant\n<think>\n")
    assert not shape.begins_in_reasoning("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not shape.begins_in_reasoning("<|im_start|>assistant\n")


def test_a_template_that_shows_no_reasoning_but_takes_it_out_has_its_marks_too() -> None:
    source = CHATML.replace(
        "'<|im_start|>assistant\\n' + message.content",
        "'<|im_start|>assistant\\n' + message.content.split('</think>')[-1]",
    )
    shape = probed(source)
    assert (shape.think_open, shape.think_close) == ("<think>", "</think>")
    assert not any(kind.startswith("control texts") for kind in shape.loses)


def test_a_template_that_numbers_turns_is_never_appended_to() -> None:
    assert probed(CHATML.replace("message.role + '\\n'", "message.role + loop.index | string + '\\n'")).delta == "whole"


def test_what_changes_before_the_turns_does_not_matter() -> None:
    assert probed("{{ messages | length }}" + CHATML).delta == "with tools"


def test_what_a_template_takes_back_in_later_turns_does_not_matter() -> None:
    empty = "'<|im_start|>assistant\\n' + ('<think></think>' if loop.index > messages | length - 3 else '')"
    shape = probed(CHATML.replace("'<|im_start|>assistant\\n'", empty, 1))
    assert "append_only" not in shape.classes
    assert shape.delta == "with tools"


def test_a_template_that_takes_words_away_is_told_of() -> None:
    shape = probed(CHATML.replace("message.content + '<|im_end|>", "message.content[:40] + '<|im_end|>"))
    assert "control texts in user text" in shape.loses


def test_a_vocabulary_that_cannot_write_every_character_is_told_of() -> None:
    known = vocabulary(word_marked_json("first"), {"eos_token": "</s>"})
    shape = probe(Template({"default": MISTRAL}, known), known)
    assert "unusual characters" in shape.loses
    assert shape.delta == "without tools"
    assert "unusual characters" not in model("mistral").shape.loses


HOSTILE = {
    "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages }}",
    "endless where tools are": "{{ messages[0].content }}{% if tools %}{% for a in range(99999) %}"
    "{% for b in range(99999) %}{% endfor %}{% endfor %}{% endif %}",
    "huge": "{% for a in range(99999) %}{{ 'more and more and more' }}{% endfor %}",
    "silent": "",
    "refusing": "{{ raise_exception('never') }}",
    "escaping": "{{ ''.__class__.__mro__[1].__subclasses__()[0]('x') }}",
    "broken": "{{ messages.a.b.c }}",
    "mute": "{% for m in messages %}{{ m.role }}{% endfor %}",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_or_useless_template_is_refused_with_the_model(kind: str) -> None:
    with pytest.raises(ModelRefused, match="chat template"):
        probed(HOSTILE[kind])
