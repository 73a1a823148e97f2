"""Templates get what they are allowed, take content for content, and say what they refuse."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from anyclaude.engine.text.template import Form, Template, TemplateRefused, TemplateTooSlow
from anyclaude.errors import InvalidRequest, ModelRefused
from anyclaude.wire.frames import Call, Turn
from tests.engine.conversations import TOOLS, arguments, texts, words
from tests.engine.shapes import FAMILIES, model, vocabulary_of

DAY = date(2026, 3, 1)
families = pytest.mark.parametrize("family", FAMILIES)


def made(source: str) -> Template:
    return Template({"default": source}, vocabulary_of("llama3"))


def render(source: str, *turns: Turn, **more: Any) -> str:
    template = made(source)
    options: dict[str, Any] = {"add_generation_prompt": False, "thinks": None, "date": DAY} | more
    text = template.render(turns or [Turn("user", "hi")], **options)
    return vocabulary_of("llama3").unshield(text)


@families
@settings(max_examples=20, deadline=None)
@given(said=words, thought=words, result=words, given_arguments=arguments, described=words)
def test_control_ids_are_those_of_the_template_whatever_the_content(
    family: str, said: str, thought: str, result: str, given_arguments: str, described: str
) -> None:
    """The same conversation with harmless words has the same control ids in the same order."""
    known = model(family)

    def controls(said: str, thought: str, result: str, arguments: str, described: str) -> list[int]:
        tool = json.loads(json.dumps(TOOLS[0]))
        tool["function"]["description"] = described
        tool["function"]["parameters"]["properties"]["path"]["description"] = described
        turns = [
            Turn("system", said),
            Turn("user", said),
            Turn("assistant", "", thought, calls=(Call("a1b2c3d4e", "Read", arguments),)),
            Turn("tool", result, call_id="a1b2c3d4e"),
            Turn("assistant", said, thought),
            Turn("user", f"{result} again"),
        ]
        text = known.template.render(
            turns, [tool], add_generation_prompt=True, thinks=None, date=DAY, form=known.shape.form
        )
        ids = known.vocabulary.encode(text).tolist()
        return [token for token in ids if token in set(known.vocabulary.added.values())]

    harmless = json.dumps(dict.fromkeys((f"k{n}" for n in range(len(json.loads(given_arguments)))), "v"))
    assert controls(said, thought, result, given_arguments, described) == controls("w", "w", "w", harmless, "w")


@families
@settings(max_examples=20, deadline=None)
@given(text=texts.map(lambda text: f"w{text}w"))
def test_what_a_person_says_reaches_the_model_as_it_is(family: str, text: str) -> None:
    known = model(family)
    turns = [Turn("user", text), Turn("assistant", "yes"), Turn("user", "go on")]
    rendered = known.template.render(
        turns, TOOLS, add_generation_prompt=True, thinks=None, date=DAY, form=known.shape.form
    )
    assert text in known.vocabulary.decode(known.vocabulary.encode(rendered))


def test_a_template_gets_the_variables_on_the_list_and_no_others() -> None:
    allowed = ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token"]
    names = [*allowed, "enable_thinking", "documents", "custom", "os"]
    source = "".join(f"{{{{ '{name} ' if {name} is defined }}}}" for name in names)
    assert render(source).split() == allowed
    assert render(source, thinks=False).split() == [*allowed, "enable_thinking"]


def test_a_turn_is_given_as_templates_know_it() -> None:
    turns = (
        Turn("assistant", "so", "why", calls=(Call("a1b2c3d4e", "Read", '{"path": "x"}'),)),
        Turn("tool", "text", call_id="a1b2c3d4e"),
    )
    assert json.loads(render("{{ messages | tojson }}", *turns)) == [
        {
            "role": "assistant",
            "content": "so",
            "reasoning_content": "why",
            "tool_calls": [
                {"id": "a1b2c3d4e", "type": "function", "function": {"name": "Read", "arguments": {"path": "x"}}}
            ],
        },
        {"role": "tool", "content": "text", "tool_call_id": "a1b2c3d4e", "name": "Read"},
    ]
    shown = "{{ messages[0].thinking }} {{ messages[0].tool_calls[0].function.arguments }}"
    assert render(shown, *turns, form=Form("text", "thinking")) == 'why {"path": "x"}'


def test_a_template_does_not_take_words_of_the_content_for_its_own() -> None:
    source = "{{ messages[0].content.split('</answer>')[-1] }}{{ '[/ANSWER]' in messages[0].content }}"
    assert render(source, Turn("user", "a</answer>b[/ANSWER]")) == "a</answer>b[/ANSWER]False"


def test_arguments_that_are_no_json_are_refused_by_name() -> None:
    call = Turn("assistant", calls=(Call("a1b2c3d4e", "Read", "{"),))
    with pytest.raises(TemplateRefused, match="arguments of a tool call"):
        render("{{ messages | tojson }}", call)


def test_half_a_surrogate_pair_in_arguments_does_no_harm() -> None:
    call = Turn("assistant", calls=(Call("a1b2c3d4e", "Read", '{"path": "\\ud800"}'),))
    assert "\ufffd" in render("{{ messages | tojson }}", call)


def test_a_refusal_is_an_invalid_request_in_the_template_s_words() -> None:
    calls = tuple(Call(f"a1b2c3d4{n}", "Read", "{}") for n in range(2))
    with pytest.raises(InvalidRequest, match="One tool call at once"):
        render(FAMILIES["llama3"].template, Turn("user", "hi"), Turn("assistant", calls=calls))


@pytest.mark.parametrize(
    "source", ["{{ messages.nothing.at.all }}", "{{ 1 / 0 }}", "{{ [] | first | tojson }}", "{{ messages + 1 }}"]
)
def test_a_template_that_breaks_is_a_refusal_without_the_prompt_in_it(source: str) -> None:
    with pytest.raises(TemplateRefused) as refused:
        render(source, Turn("user", "a secret"))
    assert "fails with" in refused.value.message
    assert "secret" not in refused.value.message


def test_a_template_that_runs_in_circles_is_a_refusal() -> None:
    with pytest.raises(TemplateRefused, match="RecursionError"):
        render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_a_template_that_takes_too_long_or_writes_too_much_is_stopped() -> None:
    slow = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    with pytest.raises(TemplateTooSlow, match="longer than"):
        render(slow, limit_s=0.1)
    with pytest.raises(TemplateTooSlow, match="much more than it was given"):
        render("{% for a in range(99999) %}{{ 'much too much of everything' }}{% endfor %}")


@pytest.mark.parametrize(
    "source", ["{{", "{% if %}", "{{ x | nothing }}", "x" * (2 << 20), "(" * 9 + "{{" + "(" * 9_999]
)
def test_a_template_that_cannot_be_read_is_refused_with_the_model(source: str) -> None:
    with pytest.raises(ModelRefused, match="chat template"):
        made(source)


def test_a_template_is_found_where_models_keep_it(tmp_path: Path) -> None:
    known = vocabulary_of("llama3")
    config = tmp_path / "tokenizer_config.json"
    with pytest.raises(ModelRefused, match="no chat template"):
        Template.read(tmp_path, known)
    config.write_text(json.dumps({"chat_template": "one"}), encoding="utf-8")
    assert Template.read(tmp_path, known).source == "one"
    named = [{"name": "tool_use", "template": "with tools"}, {"name": "default", "template": "without"}]
    config.write_text(json.dumps({"chat_template": named}), encoding="utf-8")
    template = Template.read(tmp_path, known)
    asked: dict[str, Any] = {"add_generation_prompt": False, "thinks": None, "date": DAY}
    assert template.render([Turn("user", "x")], **asked) == "without"
    assert template.render([Turn("user", "x")], TOOLS, **asked) == "with tools"
    (tmp_path / "chat_template.jinja").write_text("a file", encoding="utf-8")
    assert Template.read(tmp_path, known).source == "a file"
