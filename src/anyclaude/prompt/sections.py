"""A prompt as a list of sections, most stable first: what a prefix cache can share is a run of equal sections.

Each has a kind, a stable name, its canonical text and a digest. Names are places (`tools.Bash`, `system.0`,
`messages.4.tool_result.Read.0`), never words of the prompt.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.reminders import is_reminder
from anyclaude.telemetry.sections import SPAN, SectionRow
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Tool

Kind = Literal[
    "tool",
    "system",
    "preamble",
    "reminder",
    "text",
    "thinking",
    "tool_use",
    "tool_result",
    "late_tool",
    "image",
    "document",
    "other",
]

_TOOL_NAME = re.compile(r"[\w:./-]{1,128}", re.ASCII)


class Section(Struct, frozen=True):
    """`role` is set for parts of messages, `tool` where a tool's name belongs to it. `text` is what the digest is taken
    of; for an image that is its data."""

    kind: Kind
    name: str
    text: str
    role: str = ""
    tool: str = ""

    @property
    def n_characters(self) -> int:
        """0 for a picture: it is not read as characters."""
        return 0 if self.kind == "image" else len(self.text)

    def row(self) -> SectionRow:
        """Digests and lengths, for the ledger."""
        data = self.text.encode("utf-8", "surrogatepass")
        opens = self.role and self.name.endswith(".0")  # two messages read otherwise than one with both parts
        digest = hashlib.sha256(f"{self.kind}\0{self.role}\0{'>' if opens else ''}\0".encode() + data).digest()[:16]
        marks = b"" if self.kind == "image" else _marks(self.text, data)
        return SectionRow(self.kind, self.name, self.n_characters, digest, marks)


def _marks(text: str, data: bytes) -> bytes:
    """Four bytes a span: they tell where two versions of a section part, without their text."""
    if len(text) <= SPAN:
        return b""
    starts = range(0, len(text), SPAN)
    if len(data) == len(text):  # ASCII: spans of characters are spans of bytes
        spans = [data[at : at + SPAN] for at in starts]
    else:
        spans = [text[at : at + SPAN].encode("utf-8", "surrogatepass") for at in starts]
    return struct.pack(f">{len(spans)}I", *map(zlib.crc32, spans))


def sections_of(prompt: Prompt, *, lists_late_tools: bool = False) -> tuple[Section, ...]:
    """`lists_late_tools` for servers that get late tools in `tools`, where they come before everything else."""
    listed = prompt.tools + (prompt.late_tools if lists_late_tools else ())
    late = {} if lists_late_tools else {tool.name: tool for tool in prompt.late_tools}
    return (
        *(Section("tool", f"tools.{_shown(tool.name)}", tool_text(tool), tool=tool.name) for tool in listed),
        *(Section("system", f"system.{n}", text) for n, text in enumerate(prompt.system)),
        *(Section("preamble", f"preamble.{n}", text) for n, text in enumerate(prompt.preamble)),
        *_message_sections(prompt, late),
    )


def _message_sections(prompt: Prompt, late: dict[str, Tool]) -> Iterator[Section]:
    caller: dict[str, str] = {}
    for m, message in enumerate(prompt.messages):
        for n, block in enumerate(message.content):
            if isinstance(block, ToolUseBlock):
                caller[block.id] = block.name
            kind, tool, text = _described(block, late, caller)
            place = f"messages.{m}.{kind}.{_shown(tool)}.{n}" if tool else f"messages.{m}.{kind}.{n}"
            yield Section(kind, place, text, message.role, tool)
            if isinstance(block, ToolResultBlock):
                for k, picture in enumerate(each for each in block.content if isinstance(each, ImageBlock)):
                    yield Section("image", f"{place}.image.{k}", _picture(picture), message.role, tool)


def _shown(tool: str) -> str:
    """A model may call what no tool is called, in words of its own: those are not for the ledger."""
    return tool if _TOOL_NAME.fullmatch(tool) else "unnamed"


def _described(block: Block, late: dict[str, Tool], caller: dict[str, str]) -> tuple[Kind, str, str]:
    """Kind, the tool's name where there is one, and text."""
    match block:
        case TextBlock(text=text):
            return ("reminder" if is_reminder(block) else "text"), "", text
        case ThinkingBlock(thinking=text):
            return "thinking", "", text
        case RedactedThinkingBlock(data=data):
            return "thinking", "", data
        case ToolUseBlock(id=call_id, name=name, input=arguments):
            return "tool_use", name, f"{call_id} {name}\n{_json(arguments)}"
        case ToolResultBlock(tool_use_id=call_id):
            return "tool_result", caller.get(call_id, ""), _result_text(block, late, caller)
        case ToolReferenceBlock(tool_name=name):
            return "late_tool", name, tool_text(late[name]) if name in late else name
        case ImageBlock():
            return "image", "", _picture(block)
        case DocumentBlock(source=Base64Source(data=data) as source):
            digest = hashlib.sha256(data.encode("utf-8", "surrogatepass")).hexdigest()  # nobody reads it as characters
            return "document", "", _json(replace(block, source=replace(source, data=digest)))
        case DocumentBlock():
            return "document", "", _json(block)
        case _:
            return "other", "", _json(block)


def _picture(block: ImageBlock) -> str:
    return block.source.data if isinstance(block.source, Base64Source) else _json(block.source)


def _result_text(block: ToolResultBlock, late: dict[str, Tool], caller: dict[str, str]) -> str:
    """Pictures are sections of their own, after it."""
    parts = [_described(inner, late, caller)[2] for inner in block.content if not isinstance(inner, ImageBlock)]
    return "\n".join([f"{block.tool_use_id}{' error' if block.is_error else ''}", *parts])


def tool_text(tool: Tool) -> str:
    """A tool's definition as JSON, written one way only."""
    return _json({"name": tool.name, "description": tool.description, "input_schema": tool.input_schema})


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def rows_of(sections: Iterable[Section]) -> tuple[SectionRow, ...]:
    return tuple(section.row() for section in sections)
