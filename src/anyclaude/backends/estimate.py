"""The size of a prompt for servers that cannot be asked: characters by kind of section, each kind with the tokens that
a character of it has cost so far, and what the template adds.

A Kalman filter over what the model's own turns measured: it begins with four characters a token, is corrected by every
turn, and slowly forgets, so that it follows a person from one language to another. Its figures are estimates and never
shown as measured.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
from msgspec import Struct

Amounts = list[float]

GROUPS: dict[str, str] = {
    "tool": "tools",
    "late_tool": "tools",
    "tool_use": "calls",
    "tool_result": "results",
    "image": "images",
    "thinking": "thinking",
}
# What a prompt is measured by: characters of five kinds, and numbers of what costs tokens whatever its length. A part
# brings role markers; the first tool brings what the template says of tools; the prompt begins and ends somehow.
NAMES = ("words", "tools", "calls", "results", "thinking", "images", "parts", "any_tool", "prompt")
_GUESSES = {"images": (1000.0, 800.0), "parts": (6.0, 3.0), "any_tool": (60.0, 60.0), "prompt": (10.0, 10.0)}
# Tokens a character: the guess, how far all kinds may be off together (it is one tokenizer), and each by itself.
_CHARACTER, _TOGETHER, _ALONE = 0.25, 0.06, 0.06
_NOISE, _NOISE_TOKENS = 0.003, 5.0  # text of one kind differs too
_FORGETTING = 0.02  # share of the first uncertainty that comes back with every turn
_LEAST, _MOST = 0.05, 8.0  # tokens a character of a whole prompt; no tokenizer is outside of this
_PICTURE = 20_000  # tokens; no picture costs more


def _guess(name: str) -> float:
    return _GUESSES.get(name, (_CHARACTER, 0.0))[0]


def _prior(one: str, other: str) -> float:
    """How uncertain a guess is, and how much two of them are wrong together."""
    if one in _GUESSES or other in _GUESSES:
        return _GUESSES[one][1] ** 2 if one == other else 0.0
    return _TOGETHER**2 + (_ALONE**2 if one == other else 0.0)


_PRIOR = [[_prior(one, other) for other in NAMES] for one in NAMES]


class Calibration(Struct):
    """What each of `names` costs in tokens, and how sure that is."""

    weights: Amounts
    covariance: list[Amounts]
    n_turns: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def fresh(cls) -> "Calibration":
        return cls([_guess(name) for name in NAMES], [[*row] for row in _PRIOR], names=NAMES)

    @classmethod
    def read(cls, saved: bytes) -> "Calibration":
        """As it was saved; a fresh one where that cannot be read, or measured prompts by other things."""
        try:
            found = msgspec.json.decode(saved, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return cls.fresh()
        shape = {len(found.weights), len(found.covariance), *(len(row) for row in found.covariance)}
        return found if found.names == NAMES and shape == {len(NAMES)} else cls.fresh()

    def tokens(self, amounts: Sequence[float]) -> int:
        """Never less than nothing."""
        return math.ceil(sum(weight * amount for weight, amount in zip(self.weights, amounts, strict=True)))

    def correct(self, amounts: Sequence[float], tokens: int) -> None:
        """One measured prompt. A figure that no tokenizer gives teaches nothing: some servers leave out what they had
        cached, others count in their own way."""
        if not _is_plausible(amounts, tokens):
            return
        uncertain = self._forgetting()
        spread = [sum(value * amount for value, amount in zip(row, amounts, strict=True)) for row in uncertain]
        noise = (tokens * _NOISE) ** 2 + _NOISE_TOKENS**2
        variance = sum(amount * each for amount, each in zip(amounts, spread, strict=True)) + noise
        error = tokens - sum(weight * amount for weight, amount in zip(self.weights, amounts, strict=True))
        gain = [each / variance for each in spread]
        self.weights = [max(w + g * error, 0.0) for w, g in zip(self.weights, gain, strict=True)]
        self.covariance = [
            [value - gain[i] * spread[j] for j, value in enumerate(row)] for i, row in enumerate(uncertain)
        ]
        self.n_turns += 1

    def _forgetting(self) -> list[Amounts]:
        """The covariance, a little less sure than it was, but never less than at first."""
        share = _FORGETTING**2
        looser = [
            [value + share * first for value, first in zip(row, firsts, strict=True)]
            for row, firsts in zip(self.covariance, _PRIOR, strict=True)
        ]
        bound = [min(1.0, math.sqrt(_PRIOR[n][n] / max(row[n], 1e-12))) for n, row in enumerate(looser)]
        return [[value * bound[i] * bound[j] for j, value in enumerate(row)] for i, row in enumerate(looser)]


def _is_plausible(amounts: Sequence[float], tokens: int) -> bool:
    of = dict(zip(NAMES, amounts, strict=True))
    n_characters = sum(of[name] for name in NAMES if name not in _GUESSES)
    most = _MOST * n_characters + _PICTURE * of["images"] + 100 * (of["parts"] + 10)
    return max(1.0, _LEAST * n_characters) <= tokens <= most


class Measurable(Protocol):
    """A section, with or without its text."""

    @property
    def kind(self) -> str: ...

    @property
    def n_characters(self) -> int: ...


def amounts_of(sections: Iterable[Measurable]) -> Amounts:
    """Of sections by themselves, in the order of NAMES: without what a whole prompt has besides."""
    amounts: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    for section in sections:
        group = GROUPS.get(section.kind, "words")
        amounts[group] += 1 if group == "images" else section.n_characters
        amounts["parts"] += 1
    return list(amounts.values())


def amounts_of_prompt(sections: Sequence[Measurable]) -> Amounts:
    has_tools = any(section.kind == "tool" for section in sections)
    whole = {"any_tool": float(has_tools), "prompt": 1.0}
    return [whole.get(name, amount) for name, amount in zip(NAMES, amounts_of(sections), strict=True)]
