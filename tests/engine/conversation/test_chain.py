"""Turns that say the same have one name, and turns that do not, have not."""

import pytest

from anyclaude.engine.conversation.chain import first_key, keys_of, names_of, turn_digest
from anyclaude.wire.frames import Call, Chat, Turn


def call(arguments: str, name: str = "Read", call_id: str = "a1b2c3d4e") -> Turn:
    return Turn("assistant", calls=(Call(call_id, name, arguments),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Turn("assistant", "yes", "why", signature="s"), Turn("assistant", " yes\n")),
        (call('{"a": 1, "b": [true]}'), call('{"b":[true],"a":1.0}')),
        (call('{"a": 12345678901234567890}'), call('{"a": 12345678901234567000}')),
        (call("{}"), call("")),
        (call("{}"), call("{}", call_id="toolu_0123456789ab_a1b2c3d4e")),
        (Turn("tool", "x", call_id="a1b2c3d4e"), Turn("tool", "x", call_id="toolu_0123456789ab_a1b2c3d4e")),
    ],
)
def test_what_says_the_same_is_the_same(one: Turn, other: Turn) -> None:
    assert turn_digest(one) == turn_digest(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Turn("user", "yes"), Turn("user", "yes ")),
        (Turn("user", "yes"), Turn("system", "yes")),
        (Turn("assistant", "yes"), Turn("assistant", "y es")),
        (call('{"a": 1}'), call('{"a": true}')),
        (call('{"a": "1"}'), call('{"a": 1}')),
        (call("{}"), call("{}", "Write")),
        (call("{}"), call("{}", call_id="b1b2c3d4e")),
        (call("{"), call("")),
        (Turn("tool", "x", call_id="a1b2c3d4e"), Turn("tool", "x", call_id="b1b2c3d4e")),
    ],
)
def test_what_does_not_is_not(one: Turn, other: Turn) -> None:
    assert turn_digest(one) != turn_digest(other)


def test_a_key_names_all_turns_up_to_it() -> None:
    chat = Chat((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
    changed = Chat((Turn("user", "a"), Turn("assistant", "B"), Turn("user", "c")))
    first = first_key(b"model", (), None)
    one, other = keys_of(first, chat), keys_of(first, changed)
    assert [a == b for a, b in zip(one, other, strict=True)] == [True, True, False, False]
    assert first_key(b"model", ({"a": 1},), None) != first != first_key(b"another", (), None)
    assert first_key(b"model", (), True) != first


def test_an_answer_s_names_are_those_of_one_model() -> None:
    turn = Turn("assistant", signature="s", calls=(Call("toolu_0123456789ab_a1b2c3d4e", "Read", "{}"),))
    known = Turn("assistant", signature="s", calls=(Call("a1b2c3d4e", "Read", "{}"),))
    assert names_of(b"model", turn) == names_of(b"model", known)
    assert len(names_of(b"model", turn)) == 2
    assert not set(names_of(b"model", turn)) & set(names_of(b"another", turn))
