import pytest

from anyclaude.translate.content import error_text, image_note, json_text, part_of
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    ContentSource,
    DocumentBlock,
    FileSource,
    ImageBlock,
    OtherBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolReferenceBlock,
    UrlSource,
)
from anyclaude.wire.openai import ImagePart, ImageUrl, TextPart

PNG = ImageBlock(Base64Source("image/png", "AAAABBBB"))


def words(block: Block, *, takes_images: bool = False) -> str:
    part = part_of(block, takes_images=takes_images, late_tools={"Known": "its schema"})
    assert isinstance(part, TextPart)
    return part.text


def test_text_stays_as_it_is() -> None:
    assert words(TextBlock(" a\r\n\tb \n\n")) == " a\r\n\tb \n\n"


def test_an_image_is_sent_where_the_server_takes_images() -> None:
    assert part_of(PNG, takes_images=True, late_tools={}) == ImagePart(ImageUrl("data:image/png;base64,AAAABBBB"))


def test_an_image_that_cannot_be_sent_leaves_a_note_with_its_type_and_size() -> None:
    assert words(PNG) == "[image not shown: image/png, 6 bytes; this model reads text only]"


def test_a_note_says_why_the_image_is_not_there() -> None:
    assert image_note(PNG, "no room") == "[image not shown: image/png, 6 bytes; no room]"


@pytest.mark.parametrize("takes_images", [True, False])
def test_remote_images_are_never_fetched(takes_images: bool) -> None:
    remote, uploaded = ImageBlock(UrlSource("https://x/y.png")), ImageBlock(FileSource("file_1"))

    assert (
        words(remote, takes_images=takes_images) == "[image not shown: https://x/y.png; remote images are not fetched]"
    )
    assert words(uploaded, takes_images=takes_images) == "[image not shown: uploaded file file_1]"


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (DocumentBlock(TextSource("body\n")), "body\n"),
        (DocumentBlock(TextSource("body"), title="T", context="C"), "T\nC\nbody"),
        (DocumentBlock(ContentSource("body"), context="C"), "C\nbody"),
        (DocumentBlock(ContentSource([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])), "a\nb"),
        (
            DocumentBlock(Base64Source("application/pdf", "AAAA"), title="T"),
            "T\n[document not shown: application/pdf, 3 bytes; this model reads text only]",
        ),
        (DocumentBlock(UrlSource("https://x")), "[document not shown: https://x; remote documents are not fetched]"),
        (DocumentBlock(FileSource("f")), "[document not shown: uploaded file f]"),
        (
            SearchResultBlock("https://x", "T", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
            "T\nhttps://x\na\nb",
        ),
        (ToolReferenceBlock("Known"), "its schema"),
        (ToolReferenceBlock("Other"), "Loaded tool: Other"),
        (OtherBlock("new", {"type": "new", "text": "words"}), "words"),
        (OtherBlock("new", {"type": "new", "content": "words"}), "words"),
        (
            OtherBlock("new", {"type": "new", "content": [1], "cache_control": {"type": "ephemeral"}}),
            '{"type":"new","content":[1]}',
        ),
    ],
)
def test_everything_else_is_written_as_text(block: Block, text: str) -> None:
    assert words(block) == text


def test_a_block_that_has_no_place_in_a_user_turn_is_a_defect() -> None:
    with pytest.raises(TypeError, match="ThinkingBlock"):
        part_of(ThinkingBlock("hm"), takes_images=True, late_tools={})


def test_json_is_compact_and_keeps_its_order() -> None:
    assert json_text({"b": [1, None, "é\n"], "a": {}}) == '{"b":[1,null,"é\\n"],"a":{}}'


def test_an_error_is_marked_once() -> None:
    assert error_text("no such file") == "<tool_use_error>no such file</tool_use_error>"
    assert error_text(error_text("x")) == "<tool_use_error>x</tool_use_error>"
