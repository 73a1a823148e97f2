"""What commands print for people: no word of a model, a file or a server commands the terminal."""

import pytest

from anyclaude.cli.show import print_columns, visible


def test_control_sequences_are_shown_and_not_obeyed() -> None:
    assert visible("\x1b]0;title\x07 \x9b31m red\r") == r"\x1b]0;title\x07 \x9b31m red\x0d"


def test_lines_tabulators_and_other_scripts_stay() -> None:
    assert visible("a\n\tb é 漢 🙂") == "a\n\tb é 漢 🙂"


def test_columns_are_as_wide_as_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_columns([("a", "b"), ("\x1b[31m", "c")])
    assert capsys.readouterr().out == "a         b\n\\x1b[31m  c\n"
