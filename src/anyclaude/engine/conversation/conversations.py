"""Prompts as tokens that only grow: what was once rendered and generated for a conversation keeps its ids.

Turn n's ids, and those of the answer to it, are a prefix of turn n+1's, whatever the template would make of old turns
by then. Only what is new is rendered and encoded. Where a template does not allow that, the whole prompt is rendered.
"""

from datetime import date

import numpy as np
from msgspec import Struct

from anyclaude.engine.conversation.chain import names_of, next_key, turn_digest
from anyclaude.engine.conversation.committed import Committed, Node
from anyclaude.engine.conversation.turn_store import TurnStore
from anyclaude.engine.conversation.walk import Rendered, Walk
from anyclaude.engine.text.shape import Shape
from anyclaude.engine.text.template import Template
from anyclaude.engine.text.tokens import Ids, Vocabulary, joined
from anyclaude.wire.frames import Chat, Turn

__all__ = ["Conversations", "Rendered", "Statistics"]

_BUDGET_BYTES = 128 << 20


class Statistics(Struct, frozen=True):
    """Of the life of one `Conversations`. The characters are those rendered and encoded for it."""

    n_nodes: int
    nbytes: int
    n_whole: int
    n_chars_rendered: int
    n_chars_encoded: int


class Conversations:
    """Of one model. Used by one thread."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        template: Template,
        shape: Shape,
        store: TurnStore,
        fingerprint: bytes = b"",
        *,
        budget_bytes: int = _BUDGET_BYTES,
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._shape = shape
        self._store = store
        self._scope = fingerprint + vocabulary.digest + template.digest
        self._committed = Committed(budget_bytes)
        self._n_whole = 0
        foreign = set(vocabulary.added.values()) - shape.answer_ids
        self._foreign = np.array(sorted(foreign), np.uint32)

    def render(self, chat: Chat, day: date) -> Rendered:
        """`day` counts for a conversation that is not known yet. Raises TemplateRefused."""
        walk = Walk(self._vocabulary, self._template, self._shape, self._committed, self._store, self._scope, chat, day)
        rendered = walk.rendered()
        self._n_whole += walk.n_whole
        return rendered

    def commit(self, rendered: Rendered, answer: Turn, generated: Ids, *, is_private: bool = False) -> None:
        """The answer to a prompt has ended: when the client sends it back, it reads as it was generated. An answer with
        control tokens that no answer should hold is rendered anew instead."""
        if rendered.node is None:
            return
        if len(generated) and int(generated[-1]) in self._shape.end_ids:
            generated = generated[:-1]
        if np.isin(generated, self._foreign).any():
            return
        digest = turn_digest(answer)
        node = Node(
            key=next_key(rendered.key, digest),
            parent=rendered.node,
            ids=joined([rendered.generation, generated.astype(np.uint32)]),
            day=rendered.node.day,
            head_end=rendered.node.head_end,
            is_open=True,
            digest=digest,
            is_private=is_private,
            names=tuple(names_of(self._scope, answer)),
        )
        self._committed.add(node)
        if not any(each.is_private for each in node.path()):
            self._store.save(node)

    def clear(self) -> None:
        self._committed.clear()

    def statistics(self) -> Statistics:
        return Statistics(
            len(self._committed),
            self._committed.nbytes,
            self._n_whole,
            self._template.n_chars_rendered,
            self._vocabulary.n_chars_encoded,
        )
