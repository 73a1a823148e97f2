"""Why a turn read what it read: what the sections say could be cached, beside what the server reported."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from anyclaude.prompt.explain import Difference, difference
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow

Verdict = Literal["first", "other_model", "grown", "changed"]

KEPT = 0.9  # a server that kept so much of what it could has kept it: templates and block sizes cost a little
SLACK = 128  # tokens that a template puts first, and what an estimate may be wrong by


class Why(Struct, frozen=True, kw_only=True):
    """One turn's explanation.

    verdict         "first": nothing earlier to compare with; "other_model": the session's earlier turns were
                    another model's; "grown": the earlier prompt is a prefix of this one; "changed": it is not, and
                    `difference` tells where
    scope           whose turn it is compared with: this session's, or another one's of the project
    tokens_could    prompt tokens that stand before the first difference
    tokens_lost     tokens of the earlier prompt that stand after it
    is_estimate     both were computed from characters; False where the server itself counted the earlier prompt
    tokens_cached   what the server reported; None where it does not tell
    after_compaction  the client summarised its history in between
    ran_beside      the earlier prompt was not read yet when this turn began: nothing of it was there to be cached
    """

    turn: TurnRow
    verdict: Verdict
    compared_with: int | None = None
    scope: Literal["session", "project"] | None = None
    difference: Difference | None = None
    n_new: int = 0
    tokens_could: int | None = None
    tokens_lost: int | None = None
    is_estimate: bool = True
    tokens_cached: int | None = None
    after_compaction: bool = False
    ran_beside: bool = False

    @property
    def kept_it(self) -> bool | None:
        """Whether the server kept what it could; None where that is not known."""
        if self.tokens_could is None or self.tokens_cached is None or self.ran_beside:
            return None
        return self.tokens_cached >= KEPT * self.tokens_could

    @property
    def kept_more(self) -> bool:
        """Whether the server used clearly more than what stands before the change."""
        if self.difference is None or self.tokens_could is None or self.tokens_cached is None:
            return False
        return self.tokens_cached - self.tokens_could > SLACK and KEPT * self.tokens_cached > self.tokens_could


def explain(
    turn: TurnRow,
    sections: Sequence[SectionRow],
    earlier: TurnRow | None,
    earlier_sections: Sequence[SectionRow],
    *,
    before: TurnRow | None = None,
    after_compaction: bool = False,
) -> Why:
    """`earlier` is the turn it is compared with, `before` the one before it in its session, whatever answered that."""
    if earlier is None:
        is_other = before is not None and before.server != turn.server
        return Why(turn=turn, verdict="other_model" if is_other else "first", tokens_cached=turn.tokens_cached)
    found = difference(earlier_sections, sections)
    n_shared = len(earlier_sections) if found is None else found.n_shared
    could, is_estimate = _tokens_could(turn, earlier, found)
    return Why(
        turn=turn,
        verdict="grown" if found is None else "changed",
        compared_with=earlier.id,
        scope="session" if (earlier.session, earlier.agent) == (turn.session, turn.agent) else "project",
        difference=found,
        n_new=len(sections) - n_shared,
        tokens_could=could,
        tokens_lost=_tokens_lost(earlier, could, found),
        is_estimate=is_estimate,
        tokens_cached=turn.tokens_cached,
        after_compaction=after_compaction,
        ran_beside=earlier.started_at + (earlier.ttft_s or 0.0) > turn.started_at,
    )


def _tokens_could(turn: TurnRow, earlier: TurnRow, found: Difference | None) -> tuple[int | None, bool]:
    """The whole earlier prompt as the server counted it; or this one's tokens by its share of characters."""
    if found is None and earlier.tokens_prompt is not None:
        return earlier.tokens_prompt, False
    if not turn.tokens_prompt or not turn.n_characters:
        return None, True
    n_characters = earlier.n_characters if found is None else found.n_shared_characters
    return round(turn.tokens_prompt * min(1.0, n_characters / turn.n_characters)), True


def _tokens_lost(earlier: TurnRow, could: int | None, found: Difference | None) -> int | None:
    if found is None:
        return 0
    if could is None or earlier.tokens_prompt is None:
        return None
    return max(0, earlier.tokens_prompt - could)
