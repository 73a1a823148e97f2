"""The tools at the head of a prompt, remembered: the client lists a tool that joined among those that were there.

A head is learned from the requests of one session, agent and entry point. It holds names and digests, no text.
"""

import hashlib

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.prompt.lasting import lasting
from anyclaude.wire.messages import Message, MessagesRequest, Tool, text_of

KEPT = 4  # heads of one conversation: the client may go back and forth between two sets of tools


class Known(Struct, frozen=True):
    name: str
    digest: str


class Joined(Struct, frozen=True):
    """`message` is the number of the lasting message after which it is announced."""

    name: str
    digest: str
    message: int


class Head(Struct, frozen=True):
    tools: tuple[Known, ...]
    joined: tuple[Joined, ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        return {tool.name: tool.digest for tool in (*self.tools, *self.joined)}


def is_listed(tool: Tool) -> bool:
    return not tool.defer_loading and not tool.is_server_tool


def tool_digest(tool: Tool) -> str:
    return hashlib.sha256(msgspec.json.encode(tool)).hexdigest()[:32]


def head_for(heads: tuple[Head, ...], request: MessagesRequest) -> Head:
    """The head that this request reads from: the one it had, the one that newcomers join, or a new one.

    A tool joins only a conversation that is under way; a tool that changed or went away starts a new head.
    """
    listed = {tool.name: tool_digest(tool) for tool in request.tools if is_listed(tool)}
    for head in heads:
        if head.digests == listed:
            return _within(head, _last_place(request)) if head.joined else head
    if any(message.role == "assistant" for message in request.messages):
        grown = [head for head in heads if head.digests.items() <= listed.items() and head.tools]
        if grown:
            last = _last_place(request)
            head = _within(max(grown, key=lambda head: len(head.digests)), last)
            newcomers = sorted(listed.keys() - head.digests.keys())
            return replace(head, joined=(*head.joined, *(Joined(name, listed[name], last) for name in newcomers)))
    return Head(tuple(Known(name, listed[name]) for name in sorted(listed)))


def _last_place(request: MessagesRequest) -> int:
    return max(0, len(lasting(request.messages)) - 1)


def remembered(heads: tuple[Head, ...], used: Head) -> tuple[Head, ...]:
    """With the head that was just used in front; it takes the place of the one that it grew from."""
    others = [head for head in heads if not _grew_from(used, head)]
    return (used, *others)[:KEPT]


def _grew_from(head: Head, earlier: Head) -> bool:
    return head.tools == earlier.tools and earlier.digests.items() <= head.digests.items()


def _within(head: Head, last: int) -> Head:
    """When the client rewrites its history an announcement may lose its place: it goes to the end of what is left."""
    if all(tool.message <= last for tool in head.joined):
        return head
    return replace(head, joined=tuple(replace(tool, message=min(tool.message, last)) for tool in head.joined))


def origin(messages: tuple[Message, ...]) -> str:
    """Names a conversation by the words of its first message: a fork keeps it under another session's id."""
    words = text_of(messages[0].content)
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:32]
