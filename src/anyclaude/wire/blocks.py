"""Content blocks of a Messages API request (anthropic SDK 2.12 types, and what Claude Code sends).

Unknown fields are ignored and unknown block types kept whole as `OtherBlock`: both lists are open.
`cache_control` is read nowhere, because it never changes what the model sees.
"""

from typing import Any

import msgspec
from msgspec import Struct


class TextBlock(Struct, frozen=True, tag="text"):
    text: str


class Base64Source(Struct, frozen=True, tag="base64"):
    media_type: str
    data: str


class UrlSource(Struct, frozen=True, tag="url"):
    url: str


class FileSource(Struct, frozen=True, tag="file"):
    file_id: str


class TextSource(Struct, frozen=True, tag="text"):
    data: str
    media_type: str = "text/plain"


class ContentSource(Struct, frozen=True, tag="content"):
    content: str | list[dict[str, Any]]


class ImageBlock(Struct, frozen=True, tag="image"):
    source: Base64Source | UrlSource | FileSource


class DocumentBlock(Struct, frozen=True, tag="document"):
    source: Base64Source | UrlSource | FileSource | TextSource | ContentSource
    title: str | None = None
    context: str | None = None


class SearchResultBlock(Struct, frozen=True, tag="search_result"):
    source: str
    title: str
    content: list[dict[str, Any]]


class ThinkingBlock(Struct, frozen=True, tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, frozen=True, tag="redacted_thinking"):
    data: str = ""


class ToolUseBlock(Struct, frozen=True, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class ToolReferenceBlock(Struct, frozen=True, tag="tool_reference"):
    tool_name: str


class OtherBlock(Struct, frozen=True):
    """A block of a type that is not modelled here, with all its fields."""

    type: str
    fields: dict[str, Any]


class ToolResultBlock(Struct, frozen=True):
    tool_use_id: str
    content: "tuple[Block, ...]"
    is_error: bool = False


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolReferenceBlock
    | ToolResultBlock
    | OtherBlock
)


class _ToolResultWire(Struct, frozen=True):
    tool_use_id: str
    content: str | list[msgspec.Raw] | None = None
    is_error: bool | None = None


class _Tag(Struct, frozen=True):
    type: str


_KINDS: dict[str, Any] = {
    "text": TextBlock,
    "image": ImageBlock,
    "document": DocumentBlock,
    "search_result": SearchResultBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedThinkingBlock,
    "tool_use": ToolUseBlock,
    "tool_reference": ToolReferenceBlock,
}


class BadField(ValueError):
    """A value that the Messages API does not allow; `path` is written as its errors write it."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}" if path else problem)


def bad_field(error: msgspec.ValidationError, path: str = "") -> BadField:
    """msgspec's "Expected `int`, got `str` - at `$.a[0].b`" as "a.0.b: Expected `int`, got `str`"."""
    problem, _, where = str(error).partition(" - at `$")
    inner = where.removesuffix("`").replace("[...]", "").replace("[", ".").replace("]", "").lstrip(".")
    return BadField(".".join(part for part in (path, inner) if part), problem)


def decode_content(content: str | list[msgspec.Raw] | None, path: str) -> tuple[Block, ...]:
    """A string is one text block; nothing is an empty list."""
    if isinstance(content, str):
        return (TextBlock(content),) if content else ()
    return tuple(decode_block(raw, f"{path}.{n}") for n, raw in enumerate(content or ()))


def decode_block(raw: msgspec.Raw, path: str) -> Block:
    try:
        kind = msgspec.json.decode(raw, type=_Tag).type
        if kind == "tool_result":
            return _tool_result(msgspec.json.decode(raw, type=_ToolResultWire), path)
        if kind in _KINDS:
            return msgspec.json.decode(raw, type=_KINDS[kind])
        return _other(kind, msgspec.json.decode(raw, type=dict[str, Any]))
    except msgspec.ValidationError as error:
        raise bad_field(error, path) from None


def _other(kind: str, fields: dict[str, Any]) -> Block:
    """The client's announcement that one of `tools` joined (`tool_addition`) reads as a reference to it."""
    match fields:
        case {"type": "tool_addition", "tool": {"type": "tool_reference", "name": str(name)}}:
            return ToolReferenceBlock(name)
        case _:
            return OtherBlock(kind, {key: value for key, value in fields.items() if key != "cache_control"})


def _tool_result(wire: _ToolResultWire, path: str) -> ToolResultBlock:
    return ToolResultBlock(
        tool_use_id=wire.tool_use_id,
        content=decode_content(wire.content, f"{path}.content"),
        is_error=bool(wire.is_error),
    )
