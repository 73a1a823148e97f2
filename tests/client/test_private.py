"""`--private`: the real client works as ever, and nothing of it is written down."""

import json

from anyclaude.telemetry.history import History
from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.home import Home
from tests.support.script import in_order
from tests.support.wait import wait_until

WORDS = "the marmalade is in the third drawer"


def test_a_private_launch_leaves_no_turn_and_no_digest_behind(ask: Ask, home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("private"), chat.text("public")))
    assert ask(backend, WORDS, "--private").stdout == "private\n"
    assert ask(backend, "hello").stdout == "public\n"  # written after the first: once it is there, all is
    ledger = home.state / "ledger.sqlite3"

    def rows() -> int:
        with History(ledger) as history:
            return len(history.turns())

    wait_until(rows, "the public turn is recorded")
    assert rows() == 1
    with History(ledger) as history:
        (row,) = history.turns()
        assert row.compared_with is None
    (server,) = home.status()
    assert [turn["id"] for turn in server["turns"]] == [None, 1]
    assert "None" not in home.run("status").stdout
    written = b"".join(
        path.read_bytes() for path in [*home.state.rglob("*"), *(home.root / "cache").rglob("*")] if path.is_file()
    )
    assert WORDS.encode() not in written


def test_the_variable_makes_a_launch_private_too(ask: Ask, home: Home, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("a"), chat.text("b")))
    assert ask(backend, "x", ANYCLAUDE_PRIVATE="1").stdout == "a\n"
    assert ask(backend, "x", ANYCLAUDE_PRIVATE="0").stdout == "b\n"
    wait_until(lambda: home.run("stats", "--turns", "--json").stdout, "the public turn is recorded")
    (line,) = home.run("stats", "--turns", "--json").stdout.splitlines()
    assert json.loads(line)["id"] == 1
