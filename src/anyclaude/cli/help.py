"""What `anyclaude --help` teaches. Every list in it is made from the tables that the code works by."""

from collections.abc import Iterable

from anyclaude.backends.kinds import KINDS, Kind
from anyclaude.config.table import LOG_LEVELS, SETTINGS
from anyclaude.launch.arguments import WORDS, Word

_HEAD = """\
anyclaude: Claude Code on models that you own.

  anyclaude [options] [--] [Claude Code's arguments]

Finds the model server that runs on this machine, or runs a model in its own engine, opens a private gateway to it, and
becomes Claude Code, wired to that gateway. Arguments that are not ours go to Claude Code unchanged.

  anyclaude                                  the model that runs here, in this folder
  anyclaude -p "what does this repo do?"     one answer, for pipes
  anyclaude --continue                       go on where you stopped
  anyclaude --model mlx/ORG/NAME             a model of this machine on the embedded engine, without a server
  anyclaude --mode ollama --model qwen3:30b  name the server and the model
  anyclaude --base-url http://box:8000       a server elsewhere in your network
  anyclaude -- --help                        Claude Code's own help
"""

_TAIL = """\
Settings come from options, ANYCLAUDE_* variables and config.toml, in this order; `anyclaude config` shows each one and
where it came from. Nothing is read from the project folder. The manual is in docs/ of the repository.
"""


def help_text() -> str:
    parts = [_HEAD, "Commands:", _words(), "Options:", _options(), "Modes:", _modes(), _TAIL]
    return "\n".join(parts)


def _words() -> str:
    return _table(row for word in WORDS.values() for row in _rows(word))


def _rows(word: Word) -> list[tuple[str, str]]:
    alone = [(word.name, word.help)] if word.stands_alone or not word.commands else []
    return alone + [
        (f"{word.name} {command.name} {command.operands}".strip(), command.help) for command in word.commands
    ]


def _options() -> str:
    rows = [(f"--{s.option} {s.placeholder}".strip(), s.help) for s in SETTINGS if s.option and s.name != "debug"]
    rows += [
        ("--debug[=LEVEL]", f"log more: {', '.join(LOG_LEVELS)}; `anyclaude logs` shows it"),
        ("--no-launch", "print the client's settings and wait, instead of starting it"),
        ("--dry-run", "print what would run, and run nothing"),
        ("--version", "our version, and the client's"),
        ("--help", "this text"),
    ]
    return _table(rows)


def _modes() -> str:
    rows = [(kind.name, f"{kind.title}{_place(kind.default_url)}{_mark(kind)}") for kind in KINDS.values()]
    return _table(rows) + (
        "\n  Without a mode: whatever answers on the usual ports, told apart by its answers; else mlx, with a model\n"
        "  of this machine.\n"
        "  * tested with transcripts of its format, not yet with the real server\n"
    )


def _mark(kind: Kind) -> str:
    return " *" if kind.tried == "transcript" else ""


def _place(url: str | None) -> str:
    return f" ({url.removeprefix('http://')})" if url else ""


def _table(rows: Iterable[tuple[str, str]]) -> str:
    pairs = list(rows)
    width = max(len(name) for name, _ in pairs)
    return "".join(f"  {name:<{width}}  {text}\n" for name, text in pairs)
