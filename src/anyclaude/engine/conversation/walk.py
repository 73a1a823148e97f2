"""One prompt put together: from the longest beginning that is known, along the answers that were generated here, to the
prompt for the next answer. What stands between is rendered as additions."""

from dataclasses import dataclass
from datetime import date

import numpy as np

from anyclaude.engine.conversation.chain import first_key, keys_of, names_of, turn_digest
from anyclaude.engine.conversation.committed import Committed, Node
from anyclaude.engine.conversation.turn_store import TurnStore
from anyclaude.engine.text.delta import Addition, addition, head, whole
from anyclaude.engine.text.shape import Shape
from anyclaude.engine.text.template import Template, TemplateRefused, TemplateTooSlow
from anyclaude.engine.text.tokens import Ids, Vocabulary, joined
from anyclaude.wire.frames import Chat

_N_ENDS = 4
_TAIL = 512


@dataclass(frozen=True, eq=False)
class Rendered:
    """A prompt. `head_end`: tokens before the first user turn's words; `ends`: of the head and of the last few turns,
    ascending, all inside the prompt; `n_closed`: tokens before the generation prompt. `key`, `node` and `generation`
    are for the answer's commit."""

    ids: Ids
    head_end: int
    ends: tuple[int, ...]
    n_closed: int
    begins_in_reasoning: bool
    key: bytes
    node: Node | None
    generation: Ids


class _NotAppendable(Exception):
    """The template writes these turns otherwise when an answer is to come."""


class Walk:
    def __init__(
        self,
        vocabulary: Vocabulary,
        template: Template,
        shape: Shape,
        committed: Committed,
        store: TurnStore,
        scope: bytes,
        chat: Chat,
        day: date,
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._shape = shape
        self._committed = committed
        self._store = store
        self._scope = scope
        self._chat = chat
        self._turns = chat.turns
        self._keys = keys_of(first_key(scope, chat.tools, chat.thinks if shape.thinks_at == "head" else None), chat)
        self._day = day
        self.n_whole = 0

    def rendered(self) -> Rendered:
        """Raises TemplateRefused."""
        at, node = self._longest()
        if node is not None:
            self._day = node.day
        if self._shape.delta == "whole":
            return self._whole()
        try:
            return self._grown(at, node)
        except _NotAppendable:
            return self._whole()

    def _grown(self, at: int, node: Node | None) -> Rendered:
        while True:
            own_at, own = self._next_own(at)
            closed, generation = self._closed(node, at, own_at)
            if own is None:
                return self._asked(closed, generation)
            node, at = self._answered(closed, own, own_at), own_at + 1

    def _longest(self) -> tuple[int, Node | None]:
        at, node = self._committed.longest(self._keys) or (0, None)
        stored = self._store.path(self._keys[at + 1 :])
        for each in stored:
            known = self._committed.get(each.key)
            if known is None:
                known = each.node(parent=node if each.parent else None)
                self._committed.add(known)
            node = known
        if node is None:
            return 0, None
        self._committed.touch(node)
        return self._keys.index(node.key), node

    def _next_own(self, at: int) -> tuple[int, Node | None]:
        """The next answer that was generated here and reads as it did; where there is none, the end."""
        for n in range(max(at, 1), len(self._turns)):
            turn = self._turns[n]
            if turn.role == "assistant":
                names = names_of(self._scope, turn)
                own = self._committed.named(names) or self._store.named(names)
                if own is not None and own.digest == turn_digest(turn):
                    return n, own
        return len(self._turns), None

    def _closed(self, node: Node | None, at: int, end: int) -> tuple[Node, str]:
        """The turns up to `end`, and the prompt for an answer after them."""
        if node is None:
            return self._base(end)
        added = self._added(node, at, end)
        if added is None:
            return self._base(end)
        if not added.turns:
            return node, added.generation
        ids = self._vocabulary.encode(added.turns, is_start=False)
        closed = Node(self._keys[end], node, ids, self._day, node.head_end)
        if closed.key != node.key:
            self._committed.add(closed)
        return closed, added.generation

    def _added(self, node: Node, at: int, end: int) -> Addition | None:
        before, new = self._turns[:at], self._turns[at:end]
        try:
            return addition(
                self._template,
                self._shape,
                before,
                new,
                is_open=node.is_open,
                thinks=self._chat.thinks,
                day=self._day,
            )
        except TemplateTooSlow:
            raise
        except TemplateRefused:  # perhaps of the stand-in only: the whole prompt decides
            return None

    def _base(self, end: int) -> tuple[Node, str]:
        """The beginning of a conversation, or one that could not be appended to: all of it is rendered."""
        self.n_whole += 1
        turns = self._turns[:end]
        found = whole(self._template, self._shape, turns, self._chat.tools, thinks=self._chat.thinks, day=self._day)
        if found is None:
            raise _NotAppendable
        ids = self._vocabulary.encode(found.turns)
        node = Node(self._keys[end], None, ids, self._day, self._head_end(ids))
        self._committed.add(node)
        return node, found.generation

    def _answered(self, closed: Node, own: Node, at: int) -> Node:
        """As it was generated, the prompt that it answered included."""
        key = self._keys[at + 1]
        names = tuple(names_of(self._scope, self._turns[at]))
        node = Node(
            key,
            closed,
            own.ids,
            self._day,
            closed.head_end,
            is_open=True,
            digest=own.digest,
            is_private=own.is_private,
            names=names,
        )
        self._committed.add(node)
        return node

    def _asked(self, closed: Node, generation: str) -> Rendered:
        asked = self._vocabulary.encode(generation, is_start=False)
        ids = joined([closed.all_ids(), asked])
        ends = {closed.head_end, *(node.n_total for node in closed.path()[-_N_ENDS:])}
        return Rendered(
            ids=ids,
            head_end=closed.head_end,
            ends=tuple(sorted(end for end in ends if 0 < end < len(ids))),
            n_closed=closed.n_total,
            begins_in_reasoning=self._shape.begins_in_reasoning(generation),
            key=self._keys[-1],
            node=closed,
            generation=asked,
        )

    def _whole(self) -> Rendered:
        """Of a template that nothing can be appended to: only the conversation's day is kept."""
        self.n_whole += 1
        text = self._template.render(
            self._turns,
            self._chat.tools,
            add_generation_prompt=True,
            thinks=self._chat.thinks,
            date=self._day,
            form=self._shape.form,
        )
        ids = self._vocabulary.encode(text)
        head_end = self._head_end(ids)
        self._committed.add(Node(self._keys[-1], None, ids[:0], self._day, head_end))
        return Rendered(
            ids=ids,
            head_end=head_end,
            ends=(head_end,) if 0 < head_end < len(ids) else (),
            n_closed=len(ids),
            begins_in_reasoning=self._shape.begins_in_reasoning(text[-_TAIL:]),
            key=self._keys[-1],
            node=None,
            generation=ids[:0],
        )

    def _head_end(self, ids: Ids) -> int:
        try:
            text = head(
                self._template, self._shape, self._turns, self._chat.tools, thinks=self._chat.thinks, day=self._day
            )
        except TemplateRefused:
            return 0
        opening = self._vocabulary.encode(text)
        n = min(len(opening), len(ids))
        different = np.flatnonzero(opening[:n] != ids[:n])
        return int(different[0]) if different.size else n
