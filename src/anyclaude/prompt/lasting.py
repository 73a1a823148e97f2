"""The part of a request's messages that later requests repeat, in the order in which it is read.

A place in a conversation is a message's number in this list: the client may move or drop the rest.
"""

import re
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from anyclaude.prompt.own import is_own
from anyclaude.prompt.reminders import REMINDER_CLOSE, REMINDER_OPEN
from anyclaude.wire.blocks import Block, TextBlock
from anyclaude.wire.messages import Message

_COUNTER = re.compile(
    rf"\s*(?:{REMINDER_OPEN}\s*)?<total_tokens>[^<]*</total_tokens>\s*(?:{REMINDER_CLOSE}\s*)?", re.ASCII
)


def lasting(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The preamble is looked for first, among neighbours as the client sent them: what goes must not make new ones."""
    return without_counters(without_own(without_empty_system(preamble_first(messages))))


def without_empty_system(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """One that says nothing must not stand before the first user message."""
    return tuple(message for message in messages if message.content or message.role != "system")


def preamble_first(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The `system` message right after the first user message describes project and environment: its words go ahead of
    that message, so that a new session differs only from the person's words on."""
    match messages:
        case (Message(role="user") as first, Message(role="system") as preamble, *rest) if words := texts(preamble):
            others = others_than_text(preamble)
            behind = (replace(preamble, content=others),) if others else ()
            return (replace(preamble, content=words), first, *behind, *rest)
        case _:
            return messages


def texts(message: Message) -> tuple[Block, ...]:
    return tuple(block for block in message.content if isinstance(block, TextBlock))


def others_than_text(message: Message) -> tuple[Block, ...]:
    return tuple(block for block in message.content if not isinstance(block, TextBlock))


def without_own(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """What anyclaude itself put into a stream (progress, for example) was never the model's and never comes back."""
    return tuple(_without(messages, lambda _, block: is_own(block)))


def without_counters(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """A counter of tokens left is out of date on the next turn, and the client may then move it. It goes where it is
    all that a block says; one that a person typed is all that their message says, and stays."""
    return tuple(
        _without(
            messages,
            lambda message, block: is_counter(block) and (message.role == "system" or len(message.content) > 1),
        )
    )


def _without(messages: tuple[Message, ...], leaves: Callable[[Message, Block], bool]) -> Iterator[Message]:
    """A message of which nothing stays goes whole."""
    for message in messages:
        kept = tuple(block for block in message.content if not leaves(message, block))
        if len(kept) == len(message.content):
            yield message
        elif kept:
            yield replace(message, content=kept)


def is_counter(block: Block) -> bool:
    return isinstance(block, TextBlock) and says_a_counter(block.text)


def says_a_counter(text: str) -> bool:
    return _COUNTER.fullmatch(text) is not None
