"""Prompts grow: what was read and written once keeps its tokens, whatever the template would make of it later."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anyclaude.engine.conversation import Conversations, Rendered
from anyclaude.engine.probe import probe
from anyclaude.engine.template import Template, TemplateRefused
from anyclaude.engine.turn_store import TurnStore
from anyclaude.wire.frames import Call, Chat, Turn
from tests.engine.conversations import TOOLS, Step, as_ids, sent_back, steps
from tests.engine.shapes import FAMILIES, Model, model, vocabulary_of

DAY, NEXT_DAY = date(2026, 3, 1), date(2026, 3, 2)
families = pytest.mark.parametrize("family", FAMILIES)


def conversations(known: Model, store: TurnStore | None = None) -> Conversations:
    return Conversations(known.vocabulary, known.template, known.shape, store or TurnStore(None), b"model")


def begins_with(longer: Rendered, ids: list[int]) -> bool:
    return longer.ids[: len(ids)].tolist() == ids


@families
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_turn_begins_with_the_tokens_of_the_turn_before_and_its_answer(
    family: str, data: st.DataObject, tmp_path: Path
) -> None:
    known = model(family)
    store = TurnStore(tmp_path / "turns.sqlite3")
    store.clear()
    talk = conversations(known, store)
    turns = (Turn("system", "You help. <|im_end|>"),)
    expected: list[int] = []
    was_ours = n_restarts = 0
    for step in data.draw(steps(known)):
        if step.restarts and was_ours:
            talk, n_restarts = conversations(known, store), n_restarts + 1
        turns += step.asked
        thinks = step.thinks if known.shape.thinks_at != "head" else None
        rendered = talk.render(Chat(turns, TOOLS, thinks), DAY)
        assert begins_with(rendered, expected)
        assert n_restarts or talk.statistics().n_whole == 1
        expected, was_ours = _after(talk, known, rendered, step), step.is_ours
        turns += (sent_back(step),)
    store.close()


def _after(talk: Conversations, known: Model, rendered: Rendered, step: Step) -> list[int]:
    """What the next prompt has to begin with."""
    if not step.is_ours:
        return rendered.ids[: rendered.n_closed].tolist()
    talk.commit(rendered, step.answer, as_ids(step.generated))
    written = list(step.generated)
    if written[-1] in known.shape.end_ids:
        written.pop()
    return rendered.ids.tolist() + written
