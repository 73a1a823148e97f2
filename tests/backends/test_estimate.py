import math
import random
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from anyclaude.backends.estimate import NAMES, Calibration, amounts_of, amounts_of_prompt

SEEDS = range(12)


class Part(Struct, frozen=True):
    kind: str
    n_characters: int


class Tokenizer(Struct, frozen=True):
    """A made-up one: tokens a character by kind, and what its template adds."""

    words: float = 0.22
    tools: float = 0.26
    calls: float = 0.36
    results: float = 0.33
    thinking: float = 0.21
    picture: int = 1300
    part: int = 5
    any_tool: int = 150
    prompt: int = 3

    def count(self, parts: list[Part]) -> int:
        has_tools = any(part.kind == "tool" for part in parts)
        return self.prompt + self.any_tool * has_tools + sum(self._cost(part) for part in parts)

    def _cost(self, part: Part) -> int:
        if part.kind == "image":
            return self.picture + self.part
        rates = {"tool": self.tools, "tool_use": self.calls, "tool_result": self.results, "thinking": self.thinking}
        return math.ceil(part.n_characters * rates.get(part.kind, self.words)) + self.part


def dense(factor: float) -> Tokenizer:
    """Of another language, for example."""
    plain = Tokenizer()
    rates = {name: getattr(plain, name) * factor for name in ("words", "tools", "calls", "results", "thinking")}
    return Tokenizer(**rates)


def first_prompt(pick: random.Random) -> list[Part]:
    """Of the size that the client's has."""
    tools = [Part("tool", pick.randint(300, 5000)) for _ in range(12)]
    return [*tools, *(Part(kind, size) for kind, size in (("system", 7000), ("preamble", 9100), ("text", 400)))]


def next_parts(pick: random.Random) -> Iterator[Part]:
    if pick.random() < 0.3:
        yield Part("thinking", pick.randint(100, 2000))
    if pick.random() < 0.8:
        yield Part("tool_use", pick.randint(60, 1200))
        yield Part("tool_result", pick.randint(50, 6000))
    else:
        yield Part("text", pick.randint(100, 2000))
        yield Part("text", pick.randint(20, 800))


def tokens(calibration: Calibration, parts: list[Part]) -> int:
    return calibration.tokens(amounts_of_prompt(parts))


def taught(calibration: Calibration, tokenizer: Tokenizer, pick: random.Random, n_turns: int) -> list[float]:
    """How far off the estimate of each turn was, as a share, before it was measured."""
    parts = first_prompt(pick)
    off: list[float] = []
    for _ in range(n_turns):
        count = tokenizer.count(parts)
        off.append(abs(tokens(calibration, parts) / count - 1))
        calibration.correct(amounts_of_prompt(parts), count)
        parts = [*parts, *next_parts(pick)]
    return off


@pytest.mark.parametrize("factor", [0.8, 1.0, 1.4, 3.0])
@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_few_turns_the_next_ones_estimate_is_within_two_per_cent(seed: int, factor: float) -> None:
    off = taught(Calibration.fresh(), dense(factor), random.Random(seed), 30)
    assert max(off[8:]) < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_one_tool_or_one_text_alone_is_estimated_sensibly(seed: int) -> None:
    pick, tokenizer, calibration = random.Random(seed), Tokenizer(), Calibration.fresh()
    taught(calibration, tokenizer, pick, 10)
    for part in (Part("tool", 3000), Part("tool", 600), Part("system", 7000), Part("text", 1500)):
        alone = [part] if part.kind != "tool" else [part, Part("text", 3)]
        assert abs(tokens(calibration, alone) / tokenizer.count(alone) - 1) < 0.3


def test_before_any_turn_four_characters_are_a_token_and_the_template_adds_little() -> None:
    fresh = Calibration.fresh()
    assert 1000 <= tokens(fresh, [Part("system", 4000)]) <= 1050
    assert 1 <= tokens(fresh, [Part("text", 1)]) <= 30
    assert 1 <= tokens(fresh, [Part("tool", 80), Part("text", 3)]) <= 130


def test_one_turn_teaches_what_the_same_prompt_costs() -> None:
    calibration, parts = Calibration.fresh(), first_prompt(random.Random(1))
    calibration.correct(amounts_of_prompt(parts), 30_000)
    assert abs(tokens(calibration, parts) - 30_000) < 300


def test_what_was_learned_of_one_kind_is_expected_of_the_others() -> None:
    """It is one tokenizer: results were never seen here, and are expected to be as dense as the rest."""
    calibration = Calibration.fresh()
    for size in (20_000, 30_000, 40_000):
        calibration.correct(amounts_of_prompt([Part("text", size)]), size // 2)
    assert tokens(calibration, [Part("tool_result", 10_000)]) > 3200


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_it_follows_when_the_content_becomes_another(seed: int) -> None:
    calibration, pick = Calibration.fresh(), random.Random(seed)
    taught(calibration, Tokenizer(), pick, 200)
    off = taught(calibration, dense(1.5), pick, 30)
    assert off[0] > 0.25
    assert max(off[15:]) < 0.02


def test_a_picture_is_counted_by_number_and_learned_from_one() -> None:
    assert amounts_of([Part("image", 0), Part("image", 0)])[NAMES.index("images")] == 2
    calibration, parts = Calibration.fresh(), first_prompt(random.Random(1))
    tokenizer = Tokenizer(picture=20)  # a note stands in its place
    for shown in (parts, [*parts, Part("image", 0)], [*parts, Part("image", 0)]):
        calibration.correct(amounts_of_prompt(shown), tokenizer.count(shown))
    assert tokens(calibration, [*parts, Part("image", 0)]) - tokens(calibration, parts) < 200


def test_what_a_whole_prompt_has_besides_is_no_sections_own() -> None:
    parts = [Part("tool", 400), Part("text", 400)]
    own = sum(Calibration.fresh().tokens(amounts_of([part])) for part in parts)
    assert own < tokens(Calibration.fresh(), parts)
    assert amounts_of_prompt(parts[1:])[NAMES.index("any_tool")] == 0


@pytest.mark.parametrize("figure", [0, -5, 1, 400, 10**9, 10**400])
def test_a_figure_that_no_tokenizer_gives_teaches_nothing(figure: int) -> None:
    """Some servers leave out what they had cached."""
    calibration, parts = Calibration.fresh(), first_prompt(random.Random(1))
    calibration.correct(amounts_of_prompt(parts), figure)
    assert calibration == Calibration.fresh()


KINDS = st.sampled_from(["tool", "late_tool", "system", "text", "thinking", "tool_use", "tool_result", "image", "new"])
PARTS = st.lists(st.builds(Part, KINDS, st.one_of(st.integers(0, 50_000), st.integers(0, 10**13))), max_size=12)
FIGURES = st.one_of(st.integers(-5, 200_000), st.integers(0, 10**15))


@given(st.lists(st.tuples(PARTS, FIGURES), max_size=12), PARTS)
def test_whatever_it_is_told_an_estimate_is_a_number_of_tokens(
    told: list[tuple[list[Part], int]], asked: list[Part]
) -> None:
    calibration = Calibration.fresh()
    for parts, figure in told:
        calibration.correct(amounts_of_prompt(parts), figure)
    assert tokens(calibration, asked) >= 0
    assert all(math.isfinite(weight) and weight >= 0 for weight in calibration.weights)
    assert all(math.isfinite(value) for row in calibration.covariance for value in row)
    assert all(calibration.covariance[n][n] >= 0 for n in range(len(NAMES)))


@given(st.lists(st.tuples(PARTS, FIGURES), max_size=6))
def test_what_was_learned_is_the_same_after_it_was_saved(told: list[tuple[list[Part], int]]) -> None:
    calibration = Calibration.fresh()
    for parts, figure in told:
        calibration.correct(amounts_of_prompt(parts), figure)
    assert Calibration.read(msgspec.json.encode(calibration)) == calibration


@pytest.mark.parametrize(
    "saved",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"{}",
        b'{"weights":[0.25],"covariance":[[0.01]],"n_turns":3}',
        msgspec.json.encode(Calibration([0.1] * 9, [[0.0] * 9] * 8, names=NAMES)),
        msgspec.json.encode(Calibration([0.1] * 9, [[0.0] * 9] * 9, names=("other",) * 9)),
    ],
)
def test_what_an_older_version_saved_is_forgotten(saved: bytes) -> None:
    assert Calibration.read(saved) == Calibration.fresh()
