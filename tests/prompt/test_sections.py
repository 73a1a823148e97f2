"""A prompt in sections: what each is called, what its text is, and when two are the same."""

import msgspec
import pytest

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.explain import n_equal
from anyclaude.prompt.reminders import reminder
from anyclaude.prompt.sections import Section, rows_of, sections_of
from anyclaude.telemetry.sections import SPAN
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    OtherBlock,
    RedactedThinkingBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from anyclaude.wire.messages import Message, Tool, decode_request

BASH = Tool("Bash", "runs", {"type": "object"})
WEB = Tool("Web", "fetches", {"type": "object"}, defer_loading=True)
WEB_TEXT = '{"name":"Web","description":"fetches","input_schema":{"type":"object"}}'
PICTURE = ImageBlock(Base64Source("image/png", "A" * 4000))
CALL = ToolUseBlock("toolu_1", "Bash", {"command": "ls", "n": 1})


def section_of(block: Block, role: str = "user") -> Section:
    (section,) = sections_of(Prompt(messages=(Message("user" if role == "user" else "assistant", (block,)),)))
    return section


def test_a_whole_prompt_in_the_order_in_which_it_is_read() -> None:
    found = ToolResultBlock("toolu_1", (TextBlock("out"), PICTURE, ToolReferenceBlock("Web"), PICTURE))
    prompt = Prompt(
        tools=(BASH,),
        system=("You are", "careful"),
        preamble=("environment",),
        messages=(
            Message("user", (reminder("project"), TextBlock("hi"))),
            Message("assistant", (ThinkingBlock("hm", "signature"), TextBlock("Listing."), CALL)),
            Message("user", (found, PICTURE, ToolReferenceBlock("Web"))),
        ),
        late_tools=(WEB,),
    )

    assert [(section.name, section.kind, section.role, section.text[:100]) for section in sections_of(prompt)] == [
        ("tools.Bash", "tool", "", '{"name":"Bash","description":"runs","input_schema":{"type":"object"}}'),
        ("system.0", "system", "", "You are"),
        ("system.1", "system", "", "careful"),
        ("preamble.0", "preamble", "", "environment"),
        ("messages.0.reminder.0", "reminder", "user", "<system-reminder>\nproject\n</system-reminder>"),
        ("messages.0.text.1", "text", "user", "hi"),
        ("messages.1.thinking.0", "thinking", "assistant", "hm"),
        ("messages.1.text.1", "text", "assistant", "Listing."),
        ("messages.1.tool_use.Bash.2", "tool_use", "assistant", 'toolu_1 Bash\n{"command":"ls","n":1}'),
        ("messages.2.tool_result.Bash.0", "tool_result", "user", f"toolu_1\nout\n{WEB_TEXT}"),
        ("messages.2.tool_result.Bash.0.image.0", "image", "user", "A" * 100),
        ("messages.2.tool_result.Bash.0.image.1", "image", "user", "A" * 100),
        ("messages.2.image.1", "image", "user", "A" * 100),
        ("messages.2.late_tool.Web.2", "late_tool", "user", WEB_TEXT),
    ]


def test_where_late_tools_are_listed_they_come_first_and_only_their_names_later() -> None:
    prompt = Prompt(
        tools=(BASH,), system=("s",), messages=(Message("user", (ToolReferenceBlock("Web"),)),), late_tools=(WEB,)
    )

    found = [(section.name, section.text) for section in sections_of(prompt, lists_late_tools=True)]

    assert [name for name, _ in found] == ["tools.Bash", "tools.Web", "system.0", "messages.0.late_tool.Web.0"]
    assert (found[1][1], found[3][1]) == (WEB_TEXT, "Web")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (TextBlock("a"), TextBlock("a\n")),
        (TextBlock("a"), ThinkingBlock("a")),
        (CALL, ToolUseBlock("toolu_1", "Read", CALL.input)),
        (CALL, ToolUseBlock("toolu_2", "Bash", CALL.input)),
        (CALL, ToolUseBlock("toolu_1", "Bash", {"n": 1, "command": "ls"})),
        (ToolResultBlock("t", (TextBlock("a"),)), ToolResultBlock("t", (TextBlock("a"),), is_error=True)),
        (ToolResultBlock("t", (TextBlock("a"),)), ToolResultBlock("t", (TextBlock("a"), TextBlock("")))),
        (PICTURE, ImageBlock(Base64Source("image/png", "B" * 4000))),
        (PICTURE, ImageBlock(UrlSource("https://x"))),
        (DocumentBlock(TextSource("a"), title="t"), DocumentBlock(TextSource("a"))),
        (DocumentBlock(Base64Source("application/pdf", "QQ")), DocumentBlock(Base64Source("application/pdf", "Qg"))),
        (OtherBlock("new", {"a": 1}), OtherBlock("new", {"a": 2})),
        (RedactedThinkingBlock("a"), RedactedThinkingBlock("b")),
    ],
)
def test_what_a_model_would_read_differently_has_another_digest(one: Block, other: Block) -> None:
    assert section_of(one).row().digest == section_of(one).row().digest
    assert section_of(one).row().digest != section_of(other).row().digest


def test_the_same_words_of_another_role_have_another_digest() -> None:
    assert section_of(TextBlock("a")).row().digest != section_of(TextBlock("a"), "assistant").row().digest


def test_two_messages_read_otherwise_than_one_with_both_parts() -> None:
    one, other = TextBlock("a"), TextBlock("b")
    apart = Prompt(messages=(Message("user", (one,)), Message("user", (other,))))
    together = Prompt(messages=(Message("user", (one, other)),))

    assert n_equal(rows_of(sections_of(apart)), rows_of(sections_of(together))) == 1


def test_a_signature_changes_nothing_because_no_model_reads_it() -> None:
    assert section_of(ThinkingBlock("a", "s")) == section_of(ThinkingBlock("a", ""))


def test_cache_control_and_the_form_of_content_change_nothing() -> None:
    """The client moves the one and changes the other from turn to turn."""
    cached = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    bodies = [{"model": "m", "messages": [{"role": "user", "content": content}]} for content in ("hi", [cached])]

    one, other = (decode_request(msgspec.json.encode(body), needs_max_tokens=False).messages for body in bodies)

    assert sections_of(Prompt(messages=one)) == sections_of(Prompt(messages=other))


def test_pictures_and_files_are_not_read_as_characters() -> None:
    document = DocumentBlock(Base64Source("application/pdf", "A" * 4000))
    result = sections_of(Prompt(messages=(Message("user", (ToolResultBlock("t", (PICTURE, TextBlock("abc"))),)),)))

    assert section_of(PICTURE).n_characters == 0
    assert section_of(PICTURE).row().marks == b""
    assert section_of(document).n_characters < 200
    assert [section.n_characters for section in result] == [len("t\nabc"), 0]


@pytest.mark.parametrize(("n_characters", "n_marks"), [(0, 0), (SPAN, 0), (SPAN + 1, 2), (3 * SPAN, 3)])
def test_a_long_text_has_a_mark_for_every_span(n_characters: int, n_marks: int) -> None:
    text = "é" * n_characters
    row = section_of(TextBlock(text)).row()

    assert (row.n_characters, len(row.marks)) == (n_characters, 4 * n_marks)
    assert len(row.digest) == 16


def test_rows_hold_no_text() -> None:
    prompt = Prompt(system=("secret words",), messages=(Message("user", (TextBlock("secret " * 200),)),))

    assert "secret" not in str(rows_of(sections_of(prompt)))


def test_half_an_emoji_has_a_digest_too() -> None:
    assert section_of(TextBlock("\ud83d" * (SPAN + 1))).row().marks
