"""Where two prompts part, from digests and lengths alone."""

from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from anyclaude.prompt.explain import Change, difference, n_equal
from anyclaude.prompt.sections import Kind, Section, rows_of
from anyclaude.telemetry.sections import SPAN, SectionRow

LENGTHS = st.sampled_from((0, 1, 7, SPAN - 1, SPAN, SPAN + 1, 2 * SPAN, 2 * SPAN + 1, 5 * SPAN + 3))


def section(name: str, text: str, kind: str = "text") -> Section:
    return Section(cast("Kind", kind), name, text, "user")


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Of any length around the edges of spans, and nowhere periodic."""
    start = draw(st.integers(0, 10_000))
    return "".join(f"{n:x} é" for n in range(start, start + 700))[: draw(LENGTHS)]


@st.composite
def prompts(draw: st.DrawFn) -> tuple[Section, ...]:
    return tuple(section(f"messages.{n}.text.0", f"{n}:{draw(texts())}") for n in range(draw(st.integers(1, 6))))


def rows(*sections: Section) -> tuple[SectionRow, ...]:
    return rows_of(sections)


def first_difference(one: str, other: str) -> int:
    return next(
        (n for n, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), min(len(one), len(other))
    )


@settings(max_examples=100, deadline=None)
@given(prompt=prompts(), n=st.integers(0, 6))
def test_a_prompt_that_only_grew_has_no_difference(prompt: tuple[Section, ...], n: int) -> None:
    assert difference(rows(*prompt[:n]), rows(*prompt)) is None
    assert n_equal(rows(*prompt[:n]), rows(*prompt)) == min(n, len(prompt))


@settings(max_examples=100, deadline=None)
@given(prompt=prompts(), n=st.integers(0, 5))
def test_a_prompt_that_was_cut_short_has_lost_a_section(prompt: tuple[Section, ...], n: int) -> None:
    assume(n < len(prompt))

    found = difference(rows(*prompt), rows(*prompt[:n]))

    assert found is not None
    assert (found.change, found.name, found.n_shared) == ("removed", prompt[n].name, n)
    assert found.n_shared_characters == sum(len(each.text) for each in prompt[:n])
    assert (found.from_character, found.to_character) == (0, len(prompt[n].text))


@settings(max_examples=500, deadline=None)
@given(prompt=prompts(), n=st.integers(0, 5), at=LENGTHS, cut=LENGTHS, words=st.sampled_from(("", "x", "words " * 90)))
def test_a_changed_text_is_found_and_so_is_the_place_in_it(
    prompt: tuple[Section, ...], n: int, at: int, cut: int, words: str
) -> None:
    """Whatever is written in place of whatever, wherever."""
    assume(n < len(prompt))
    text = prompt[n].text
    other = text[:at] + words + text[at + cut :]
    assume(other != text)
    changed = (*prompt[:n], replace(prompt[n], text=other), *prompt[n + 1 :])

    found = difference(rows(*prompt), rows(*changed))

    assert found is not None
    assert (found.change, found.name, found.n_shared) == ("changed", prompt[n].name, n)
    place = first_difference(text, other)
    assert found.from_character <= place <= found.to_character
    assert found.to_character - found.from_character <= SPAN
    shared = sum(len(each.text) for each in prompt[:n])
    assert found.n_shared_characters == shared + found.from_character


@settings(max_examples=200, deadline=None)
@given(one=prompts(), other=prompts())
def test_there_is_no_difference_only_where_one_is_a_prefix_of_the_other(
    one: tuple[Section, ...], other: tuple[Section, ...]
) -> None:
    n = n_equal(rows(*one), rows(*other))

    assert one[:n] == other[:n]
    assert n == min(len(one), len(other)) or one[n] != other[n]
    assert (difference(rows(*one), rows(*other)) is None) == (other[: len(one)] == one)


A, B, C = (section(f"tools.{name}", f"{name} {'does things ' * 40}", "tool") for name in "ABC")
S = section("system.0", "You are", "system")
LATE = section("messages.2.late_tool.B.1", "B joined", "late_tool")
WORDS = section("messages.3.text.0", "said")


@pytest.mark.parametrize(
    ("before", "after", "change", "name"),
    [
        ((A, C, S), (A, B, C, S), "added", "tools.B"),
        ((A, B, C, S), (A, C, S), "removed", "tools.B"),
        ((A, B, S), (A, replace(B, text="other"), S), "changed", "tools.B"),
        ((A, B, S), (A, C, S), "changed", "tools.C"),
        ((A, S), (A, C, replace(S, text="You were")), "added", "tools.C"),
        ((A, C, S), (A, replace(S, text="You were")), "removed", "tools.C"),
        ((A, LATE), (A, WORDS), "removed", "messages.2.late_tool.B.1"),
        ((A, WORDS), (A, LATE), "added", "messages.2.late_tool.B.1"),
    ],
)
def test_what_happened_is_told_by_what_is_still_there(
    before: tuple[Section, ...], after: tuple[Section, ...], change: Change, name: str
) -> None:
    found = difference(rows(*before), rows(*after))

    assert found is not None
    assert (found.change, found.name, found.n_shared) == (change, name, 1)
    assert found.n_shared_characters >= len(A.text)


def test_an_empty_prompt_is_a_prefix_of_every_other() -> None:
    assert difference((), rows(A)) is None
    assert difference((), ()) is None


def test_another_section_in_the_same_place_is_told_with_what_stood_there() -> None:
    earlier = rows_of((section("messages.0.text.0", "a"), section("messages.1.tool_use.Bash.0", "b", "tool_use")))
    found = difference(earlier, rows_of((section("messages.0.text.0", "a"), section("messages.1.text.0", "c"))))
    assert found is not None
    assert (found.name, found.instead_of) == ("messages.1.text.0", "messages.1.tool_use.Bash.0")
    same = difference(earlier, rows_of((section("messages.0.text.0", "x"),)))
    assert same is not None
    assert same.instead_of is None
