"""Rewrites what in the documents is made from code.

python -m tests.docs.regenerate
"""

from pathlib import Path

from anyclaude.cli.help import help_text

COMMANDS = Path(__file__).parents[2] / "docs" / "commands.md"
BEGIN, END = "<!-- help: begin -->\n", "<!-- help: end -->\n"


def with_help(document: str, text: str) -> str:
    """The document with the help between its two marks."""
    before, _, rest = document.partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"{COMMANDS.name} has lost the marks around the help"
    return f"{before}{BEGIN}\n```text\n{text}```\n\n{END}{after}"


if __name__ == "__main__":
    COMMANDS.write_text(with_help(COMMANDS.read_text("utf-8"), help_text()), encoding="utf-8")
