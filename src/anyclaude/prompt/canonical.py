"""A request in canonical form: the same conversation always reads the same, and only grows.

Pure functions, one step each, with the reason it exists. Nothing here looks at the client's English: those sentences
change with every release of it. Text is moved or left out whole, never edited. Given the head, what a message becomes
depends on what stands before it, never on what is appended later.
"""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.prompt.head import Head, is_listed
from anyclaude.prompt.lasting import lasting, others_than_text, says_a_counter
from anyclaude.prompt.reminders import is_reminder, reminder
from anyclaude.wire.blocks import Block, ToolReferenceBlock, ToolResultBlock
from anyclaude.wire.messages import Message, MessagesRequest, Tool, text_of

ATTRIBUTION = "x-anthropic-billing-header:"


class Prompt(Struct, frozen=True):
    """What a model is to read, most stable first: tools, system text, the preamble (project and environment), messages
    (user and assistant only).

    `late_tools` joined in the middle of the conversation, in the order of their arrival; a `ToolReferenceBlock` stands
    in `messages` where each did.
    """

    tools: tuple[Tool, ...] = ()
    system: tuple[str, ...] = ()
    preamble: tuple[str, ...] = ()
    messages: tuple[Message, ...] = ()
    late_tools: tuple[Tool, ...] = ()


def canonical(request: MessagesRequest, head: Head | None = None) -> Prompt:
    """`head` remembers which tools the conversation began with; without it all that are listed stand at the head."""
    messages, preamble = lift_preamble(announced(lasting(request.messages), head))
    messages = fold_system(reminders_first(messages))
    tools = head_tools(request.tools, head)
    return Prompt(
        tools=tools,
        system=without_attribution(request.system),
        preamble=preamble,
        messages=messages,
        late_tools=late_tools(request.tools, tools, messages),
    )


def without_attribution(system: tuple[str, ...]) -> tuple[str, ...]:
    """The billing block holds a hash of the first user message: two sessions would share nothing. A counter here would
    change every turn."""
    return tuple(text for text in system if text and not text.startswith(ATTRIBUTION) and not says_a_counter(text))


def announced(messages: tuple[Message, ...], head: Head | None) -> tuple[Message, ...]:
    """Tools that joined unannounced are announced after the message with which they came: at the head of the prompt
    they would invalidate all of it."""
    result: list[Message] = []
    known = set[str]()
    for n, message in enumerate(messages):
        result.append(message)
        known.update(_references(message))
        newcomers = [tool.name for tool in (head.joined if head else ()) if tool.message == n]
        references = tuple(ToolReferenceBlock(name) for name in newcomers if name not in known)
        if references:
            result.append(Message("system", references))
    return tuple(result)


def lift_preamble(messages: tuple[Message, ...]) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The words of a `system` message at the start; what else it holds stays."""
    if not messages or messages[0].role != "system":
        return messages, ()
    words, others = text_of(messages[0].content), others_than_text(messages[0])
    behind = (replace(messages[0], content=others),) if others else ()
    return (*behind, *messages[1:]), (words,) if words else ()


def reminders_first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The first message's reminders are the project's, its other words the person's: stable first."""
    if not messages or messages[0].role != "user":
        return messages
    first = messages[0]
    ordered = tuple(sorted(first.content, key=lambda block: not is_reminder(block)))
    return (replace(first, content=ordered), *messages[1:])


def fold_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A later `system` message stays where it is, as a reminder in its neighbouring user turn. Hoisted to the top it
    would change the prompt's first token, and templates refuse it elsewhere. Behind the first message it is a turn of
    its own: in that message it would be one of those that go first."""
    folded: list[Message] = []
    for message in messages:
        if message.role != "system":
            folded.append(message)
            continue
        blocks = _folded_blocks(message)
        if len(folded) > 1 and folded[-1].role == "user":
            last = folded.pop()
            folded.append(replace(last, content=(*last.content, *blocks)))
        elif blocks:
            folded.append(Message("user", blocks))
    return tuple(folded)


def _folded_blocks(message: Message) -> tuple[Block, ...]:
    """Its words as one reminder; announcements of tools, and what is not text, as they are."""
    others = others_than_text(message)
    words = text_of(message.content)
    return (reminder(words), *others) if words else others


def head_tools(tools: tuple[Tool, ...], head: Head | None) -> tuple[Tool, ...]:
    """The tools at the head, sorted by name: the client's own order changes when one joins. Deferred ones are announced
    where the conversation loads them, and server tools run at the vendor's and mean nothing here."""
    joined = {tool.name for tool in head.joined} if head else set[str]()
    return tuple(sorted((tool for tool in tools if is_listed(tool) and tool.name not in joined), key=lambda t: t.name))


def late_tools(
    tools: tuple[Tool, ...], at_the_head: tuple[Tool, ...], messages: tuple[Message, ...]
) -> tuple[Tool, ...]:
    """The tools that the conversation refers to and the head does not have, first announced first."""
    known = {tool.name: tool for tool in tools if not tool.is_server_tool}
    for tool in at_the_head:
        known.pop(tool.name, None)
    announced = dict.fromkeys(name for message in messages for name in _references(message))
    return tuple(known[name] for name in announced if name in known)


def _references(message: Message) -> Iterator[str]:
    for block in message.content:
        for inner in block.content if isinstance(block, ToolResultBlock) else (block,):
            if isinstance(inner, ToolReferenceBlock):
                yield inner.tool_name
