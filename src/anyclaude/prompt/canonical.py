"""A request in canonical form: the same conversation always reads the same, and only grows.

Pure functions, one step each, with the reason it exists. Nothing here looks at the client's English:
those sentences change with every release of it. Text is moved or left out whole, never edited.
"""

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.wire.blocks import Block, TextBlock, ToolReferenceBlock, ToolResultBlock
from anyclaude.wire.messages import Message, MessagesRequest, Tool, text_of

ATTRIBUTION = "x-anthropic-billing-header:"
REMINDER_OPEN = "<system-reminder>"
REMINDER_CLOSE = "</system-reminder>"


class Prompt(Struct, frozen=True):
    """What a model is to read, in order: system text, tools, messages (user and assistant only).

    `late_tools` were announced by a `tool_reference` in the conversation, in the order of their arrival.
    """

    system: tuple[str, ...]
    tools: tuple[Tool, ...]
    late_tools: tuple[Tool, ...]
    messages: tuple[Message, ...]


def canonical(request: MessagesRequest) -> Prompt:
    messages, preamble = lift_preamble(request.messages)
    return Prompt(
        system=without_attribution(request.system) + preamble,
        tools=listed_tools(request.tools),
        late_tools=late_tools(request.tools, messages),
        messages=fold_system(reminders_first(messages)),
    )


def without_attribution(system: tuple[str, ...]) -> tuple[str, ...]:
    """The billing block holds a hash of the first user message: two sessions would share nothing."""
    return tuple(text for text in system if text and not text.startswith(ATTRIBUTION))


def lift_preamble(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The `system` message right after the first user message describes project and environment: it goes
    ahead of that message, so that a new session differs only from the person's words on."""
    match messages:
        case (Message(role="user") as first, Message(role="system") as preamble, *rest):
            return (first, *rest), (text_of(preamble.content),)
        case (Message(role="system") as preamble, *rest):
            return tuple(rest), (text_of(preamble.content),)
        case _:
            return messages, ()


def reminders_first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The first message's reminders are the project's, its other words the person's: stable first."""
    if not messages or messages[0].role != "user":
        return messages
    first = messages[0]
    ordered = tuple(sorted(first.content, key=lambda block: not is_reminder(block)))
    return (replace(first, content=ordered), *messages[1:])


def is_reminder(block: Block) -> bool:
    return isinstance(block, TextBlock) and block.text.startswith(REMINDER_OPEN)


def fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A later `system` message stays where it is, as a reminder in its neighbouring user turn. Hoisted to
    the top it would change the prompt's first token, and templates refuse it elsewhere."""
    folded: list[Message] = []
    for message in messages:
        if message.role != "system":
            folded.append(message)
            continue
        reminder = TextBlock(f"{REMINDER_OPEN}\n{text_of(message.content)}\n{REMINDER_CLOSE}")
        if folded and folded[-1].role == "user":
            last = folded.pop()
            folded.append(replace(last, content=(*last.content, reminder)))
        else:
            folded.append(Message("user", (reminder,)))
    return tuple(folded)


def listed_tools(tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    """Deferred tools join the list in the middle of a session: at the head of the prompt they would
    invalidate all of it. Server tools run at the vendor's and mean nothing here."""
    return tuple(tool for tool in tools if not tool.defer_loading and not tool.is_server_tool)


def late_tools(tools: tuple[Tool, ...], messages: tuple[Message, ...]) -> tuple[Tool, ...]:
    """Deferred tools that a `tool_reference` has announced, first announced first."""
    deferred = {tool.name: tool for tool in tools if tool.defer_loading and not tool.is_server_tool}
    announced = dict.fromkeys(
        reference.tool_name
        for message in messages
        for block in message.content
        if isinstance(block, ToolResultBlock)
        for reference in block.content
        if isinstance(reference, ToolReferenceBlock)
    )
    return tuple(deferred[name] for name in announced if name in deferred)
