"""Content blocks as the text and parts that a chat completion can carry. Nothing is dropped in silence:
what a server cannot take is named where it stood."""

from typing import Any

import msgspec

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
    ToolReferenceBlock,
    UrlSource,
)
from anyclaude.wire.messages import Tool
from anyclaude.wire.openai import ImagePart, ImageUrl, Part, TextPart

ERROR_OPEN = "<tool_use_error>"
ERROR_CLOSE = "</tool_use_error>"


def json_text(value: Any) -> str:
    """The one way JSON is written into a prompt: compact, keys in the order they came."""
    return msgspec.json.encode(value).decode()


def tool_definition(tool: Tool, parameters: dict[str, Any]) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": parameters}


def part_of(block: Block, *, takes_images: bool, late_tools: dict[str, str]) -> Part:
    """One block of a user turn or tool result. `late_tools` maps a loaded tool's name to its text."""
    match block:
        case ImageBlock():
            return image_part(block) if takes_images else TextPart(image_note(block))
        case TextBlock():
            return TextPart(block.text)
        case ToolReferenceBlock():
            return TextPart(late_tools.get(block.tool_name, f"Loaded tool: {block.tool_name}"))
        case DocumentBlock():
            return TextPart(document_text(block))
        case SearchResultBlock():
            return TextPart(search_result_text(block))
        case OtherBlock():
            return TextPart(other_text(block))
        case _:
            raise TypeError(f"{type(block).__name__} has no place in a user turn")


def image_part(block: ImageBlock) -> Part:
    match block.source:
        case Base64Source(media_type=media_type, data=data):
            return ImagePart(ImageUrl(f"data:{media_type};base64,{data}"))
        case UrlSource() | FileSource():
            return TextPart(image_note(block))


def image_note(block: ImageBlock, why: str = "this model reads text only") -> str:
    match block.source:
        case Base64Source(media_type=media_type, data=data):
            return f"[image not shown: {media_type}, {len(data) * 3 // 4} bytes; {why}]"
        case UrlSource(url=url):
            return f"[image not shown: {url}; remote images are not fetched]"
        case FileSource(file_id=file_id):
            return f"[image not shown: uploaded file {file_id}]"


def document_text(block: DocumentBlock) -> str:
    heading = "\n".join(text for text in (block.title, block.context) if text)
    match block.source:
        case TextSource(data=data):
            body = data
        case ContentSource(content=str(text)):
            body = text
        case ContentSource(content=list(parts)):
            body = "\n".join(str(part.get("text", "")) for part in parts)
        case Base64Source(media_type=media_type, data=data):
            body = f"[document not shown: {media_type}, {len(data) * 3 // 4} bytes; this model reads text only]"
        case UrlSource(url=url):
            body = f"[document not shown: {url}; remote documents are not fetched]"
        case FileSource(file_id=file_id):
            body = f"[document not shown: uploaded file {file_id}]"
        case _:
            body = json_text(block.source)
    return f"{heading}\n{body}" if heading else body


def search_result_text(block: SearchResultBlock) -> str:
    body = "\n".join(str(part.get("text", "")) for part in block.content)
    return f"{block.title}\n{block.source}\n{body}"


def other_text(block: OtherBlock) -> str:
    """Text if that is all it holds, else its JSON without `cache_control`, which never changes a rendering."""
    fields = {key: value for key, value in block.fields.items() if key != "cache_control"}
    if isinstance(text := fields.get("text", fields.get("content")), str):
        return text
    return json_text(fields)


def error_text(text: str) -> str:
    """A failed tool's result in the form that the client itself uses for most of them."""
    return text if ERROR_OPEN in text else f"{ERROR_OPEN}{text}{ERROR_CLOSE}"
