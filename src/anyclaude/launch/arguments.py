"""A command line split into what is ours and what is Claude Code's, which goes through unchanged.

Options of ours are known anywhere before `--`. A word of ours counts only as the sole word, in the first place:
`anyclaude status` is ours, `anyclaude status of the build` is a prompt, `anyclaude stop 4f2a` is the client's own.
"""

import difflib

from msgspec import Struct

from anyclaude.config.table import SETTINGS
from anyclaude.errors import UsageError


class Word(Struct, frozen=True):
    """A command of ours and the flags that it knows besides the options of every launch."""

    name: str
    help: str
    flags: tuple[str, ...] = ()


WORDS: dict[str, Word] = {
    word.name: word
    for word in (
        Word("serve", "run the gateway in the foreground and print its URL and token", ("--json",)),
        Word("status", "the running gateway, its sessions, and the newest turns as measured", ("--json",)),
        Word("stop", "stop the background gateway", ("--force", "--json")),
        Word("models", "the models that the chosen or running server has", ("--json",)),
        Word("config", "every setting, its value, and where it came from", ("--json",)),
        Word("doctor", "check client, servers, ports, settings and memory; each finding with what to do", ("--json",)),
        Word("logs", "the gateway's log; -f follows it", ("-f", "--follow")),
    )
}

# Words of the client's own (`claude --help`, 2.1.330). They need no gateway, save those in CLIENT_SESSION_WORDS.
CLIENT_WORDS = frozenset(
    [
        "agents",
        "attach",
        "auth",
        "auto-mode",
        "doctor",
        "gateway",
        "import",
        "install",
        "logs",
        "mcp",
        "plugin",
        "plugins",
        "purge",
        "respawn",
        "rm",
        "setup-token",
        "stop",
        "kill",
        "ultrareview",
        "update",
        "upgrade",
    ]
)
CLIENT_SESSION_WORDS = frozenset({"agents"})
_ASKED = {"help": "--help", "version": "--version"}
_ABOUT = ("--help", "-h", "--version")  # after a word of the client's they ask about that word
LAUNCH_FLAGS = ("--no-launch", "--dry-run", *_ABOUT)

_OPTIONS = {f"--{setting.option}": setting for setting in SETTINGS if setting.option}


class CommandLine(Struct, frozen=True):
    """`options` by setting name; `word` is a command of ours; `client` are Claude Code's arguments."""

    options: dict[str, str]
    flags: frozenset[str]
    word: str | None
    client: tuple[str, ...]


def parse(arguments: list[str]) -> CommandLine:
    """Raises UsageError."""
    options: dict[str, str] = {}
    flags: set[str] = set()
    rest: list[str] = []
    word_at: int | None = None
    position = 0
    while position < len(arguments):
        argument = arguments[position]
        if not rest and argument in CLIENT_WORDS - WORDS.keys():
            return CommandLine(options, frozenset(flags), None, tuple(arguments[position:]))
        position += 1
        if argument == "--":
            return CommandLine(options, frozenset(flags), None, (*rest, *arguments[position:]))
        name, has_value, value = argument.partition("=")
        if name in _OPTIONS:
            if name == "--debug":
                value = value or "debug"
            elif not has_value:
                value = _value(arguments, position, name)
                position += 1
            options[_OPTIONS[name].name] = value
        elif argument in LAUNCH_FLAGS and (argument not in _ABOUT or not rest or rest[0] in WORDS):
            flags.add(argument)
        else:
            word_at = position - 1 if not rest else word_at
            rest.append(argument)
    return _with_word(CommandLine(options, frozenset(flags), None, tuple(rest)), arguments, word_at)


def _value(arguments: list[str], position: int, name: str) -> str:
    if position >= len(arguments) or arguments[position] == "--":
        raise UsageError(f"{name} needs a value: {name} {_OPTIONS[name].placeholder}")
    return arguments[position]


def _with_word(line: CommandLine, arguments: list[str], word_at: int | None) -> CommandLine:
    """`word_at` is where the first argument that is not an option of ours stands."""
    if word_at is None:
        return line
    first, *others = line.client
    word = WORDS.get(first)
    if word is None:
        _check_spelling(line)
        return line
    unknown = [argument for argument in others if argument not in word.flags]
    unknown += sorted(line.flags & {"--no-launch", "--dry-run"})
    if any(not argument.startswith("-") for argument in unknown):
        if first in CLIENT_WORDS:  # the client's command of the same name, with nothing taken out of it
            return CommandLine(line.options, line.flags.difference(_ABOUT), None, tuple(arguments[word_at:]))
        return line
    if unknown:
        known = f"; it knows {', '.join(word.flags)}" if word.flags else ""
        raise UsageError(f"`anyclaude {word.name}` does not know {unknown[0]}{known}")
    return CommandLine(line.options, line.flags | frozenset(others), word.name, ())


def _check_spelling(line: CommandLine) -> None:
    """A single word that is almost one of ours was hardly meant as a prompt."""
    if len(line.client) != 1:
        return
    (word,) = line.client
    if word in _ASKED:
        raise UsageError(f"did you mean `anyclaude {_ASKED[word]}`? As a prompt: anyclaude -- {word}")
    if close := difflib.get_close_matches(word, WORDS, n=1, cutoff=0.8):
        raise UsageError(f"`{word}` is not a command; did you mean `{close[0]}`? As a prompt: anyclaude -- {word}")
