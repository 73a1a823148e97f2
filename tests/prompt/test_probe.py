"""Templates that drop parts of a prompt in silence, as public ones do, and what the probe says of them."""

import json
from collections.abc import Callable, Iterator

import pytest

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.probe import vanished
from anyclaude.prompt.reminders import reminder
from anyclaude.prompt.sections import Section, sections_of
from anyclaude.wire.blocks import (
    Base64Source,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Message, Tool

PICTURE = ImageBlock(Base64Source("image/png", "QUJD"))
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}}
PROMPT = Prompt(
    tools=(Tool("Read", 'Reads a file,\nwith "lines" & <numbers>.', SCHEMA), Tool("Bash", "", SCHEMA)),
    system=("You are a careful assistant. " * 9, "  Be short.\n"),
    preamble=("The day is Sunday.",),
    messages=(
        Message("user", (reminder("Read the project's notes."), TextBlock("Where is it?\n\tSay «so» 😀"), PICTURE)),
        Message(
            "assistant",
            (
                ThinkingBlock("They want the file's place."),
                TextBlock("Looking."),
                ToolUseBlock("toolu_1", "Read", {"path": "/src/one.py", "n": 3}),
                ToolUseBlock("toolu_2", "Read", {"edits": [{"old": 'print("two")\n', "new": ""}]}),
                ToolUseBlock("toolu_3", "Bash", {}),
            ),
        ),
        Message(
            "user",
            (
                ToolResultBlock("toolu_1", (TextBlock('{"found": "line 7"}'),)),
                ToolResultBlock("toolu_2", (), is_error=True),
                ToolResultBlock("toolu_3", (TextBlock("nothing"), PICTURE)),
            ),
        ),
    ),
)


Render = Callable[[str], str]


def rendered(keeps: Callable[[Section], bool] = lambda _: True, write: Render = str) -> str:
    """A template of this test's: parts trimmed, calls and tools as it likes."""
    return "\n".join(_parts(keeps, write))


def _parts(keeps: Callable[[Section], bool], write: Render) -> Iterator[str]:
    descriptions = {tool.name: tool.description for tool in PROMPT.tools}
    for section in filter(keeps, sections_of(PROMPT)):
        yield f"<|{section.role or section.kind}|>{section.tool}"
        match section.kind:
            case "tool":
                yield write(descriptions[section.tool])
            case "tool_use":
                arguments = json.loads(section.text.partition("\n")[2])
                yield "\n".join(f"<{name}>{_written(value, write)}" for name, value in arguments.items())
            case "tool_result":
                yield write(section.text.partition("\n")[2].strip())
            case "image":
                yield "<|image|>"
            case _:
                yield write(section.text.strip())


def _written(value: object, write: Render) -> str:
    return write(value) if isinstance(value, str) else json.dumps(value)


def as_json(text: str) -> str:
    return json.dumps(text)


def as_plain_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def shortened_in_the_middle(text: str) -> str:
    return text if len(text) < 200 else f"{text[:60]} … {text[-60:]}"


@pytest.mark.parametrize("write", [str, as_json, as_plain_json, shortened_in_the_middle])
def test_in_a_whole_rendering_nothing_vanished(write: Render) -> None:
    assert vanished(PROMPT, rendered(write=write)) == ()


def test_in_an_empty_rendering_all_that_has_words_vanished() -> None:
    gone = [section.name for section in vanished(PROMPT, "")]

    assert gone == [
        section.name
        for section in sections_of(PROMPT)
        if section.kind != "image" and section.name != "messages.2.tool_result.Read.1"
    ]


@pytest.mark.parametrize("write", [str, as_json])
@pytest.mark.parametrize(
    "name", [section.name for section in sections_of(PROMPT) if section.kind != "image" and section.tool != "Bash"][:-1]
)
def test_a_part_that_the_template_drops_is_named(name: str, write: Render) -> None:
    gone = vanished(PROMPT, rendered(lambda section: section.name != name, write))

    assert [section.name for section in gone] == [name]


def test_a_template_that_writes_one_call_a_turn_is_found_though_the_tools_name_is_there() -> None:
    second = rendered(lambda section: section.name != "messages.1.tool_use.Read.3")

    assert "Read" in second
    assert [section.name for section in vanished(PROMPT, second)] == ["messages.1.tool_use.Read.3"]
