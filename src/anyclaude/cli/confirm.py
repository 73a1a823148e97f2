"""Consent to what cannot be undone: a question on a terminal, `--yes` everywhere else."""

import sys

from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CommandLine


def is_confirmed(line: CommandLine, question: str) -> bool:
    """Raises UsageError where nobody can be asked."""
    if "--yes" in line.flags:
        return True
    words = " ".join(part for part in (line.word, line.command, *line.operands) if part)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"this asks before it deletes, and there is nobody to ask: anyclaude {words} --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
