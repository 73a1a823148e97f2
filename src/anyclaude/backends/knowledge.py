"""What was learned about servers and models while they were used: what a template refuses, what a character costs,
how long a prompt is.

Kept by the server process for all its sessions; a backend reads it and adds to it.
"""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from anyclaude.backends.counting import Counts
from anyclaude.backends.estimate import Calibration, Measurable, amounts_of_prompt
from anyclaude.backends.seam import Count, Target, Turn
from anyclaude.prompt.policy import Policy

# Words with which chat templates of public models refuse (raise_exception), and the rule that they ask for.
_REFUSALS: tuple[tuple[re.Pattern[bytes], dict[str, object]], ...] = (
    (re.compile(rb"system (?:role|messages?)(?: is| are)? not", re.IGNORECASE), {"system": "user"}),
    (re.compile(rb"roles must alternate|must alternate between", re.IGNORECASE), {"alternates": True}),
    (re.compile(rb"only supports? single tool.?calls?", re.IGNORECASE), {"one_call": True}),
    (re.compile(rb"tool call ids? (?:should|must) be alphanumeric", re.IGNORECASE), {"call_ids": "nine"}),
)

ModelKey = tuple[str, str, str]


def key_of(target: Target, model: str) -> ModelKey:
    return target.kind, target.base_url, model


class Knowledge:
    def __init__(self, calibrations: dict[ModelKey, Calibration] | None = None) -> None:
        self.calibrations = calibrations or {}
        self.counts = Counts()
        self._policies: dict[ModelKey, dict[str, object]] = {}

    def policy(self, key: ModelKey, base: Policy) -> Policy:
        return replace(base, **self._policies.get(key, {}))

    def learn_from_refusal(self, key: ModelKey, refusal: bytes) -> bool:
        """Whether the refusal names a rule of the template that was not known: asking again, fitted to it, may help."""
        known = self._policies.setdefault(key, {})
        for pattern, rule in _REFUSALS:
            if pattern.search(refusal) and not rule.items() <= known.items():
                known |= rule
                return True
        return False

    def calibration(self, key: ModelKey) -> Calibration:
        return self.calibrations.setdefault(key, Calibration.fresh())

    def estimate(self, key: ModelKey, sections: Sequence[Measurable]) -> int:
        return self.calibration(key).tokens(amounts_of_prompt(sections))

    def correct(self, key: ModelKey, sections: Sequence[Measurable], tokens: int) -> Calibration:
        """With a prompt that the server itself counted."""
        calibration = self.calibration(key)
        calibration.correct(amounts_of_prompt(sections), tokens)
        return calibration


def estimated(turn: Turn, target: Target, knowledge: Knowledge) -> Count:
    return Count(knowledge.estimate(key_of(target, turn.model), turn.sections), is_measured=False)
