"""A command line split into what is ours and what is Claude Code's, which goes through unchanged.

Options of ours are known anywhere before `--`. A word of ours counts only as the sole word, in the first place:
`anyclaude status` is ours, `anyclaude status of the build` is a prompt, `anyclaude stop 4f2a` is the client's own.
"""

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
    position = 0
    while position < len(arguments):
        argument = arguments[position]
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
            rest.append(argument)
    return _with_word(options, flags, rest)


def _value(arguments: list[str], position: int, name: str) -> str:
    if position >= len(arguments) or arguments[position] == "--":
        raise UsageError(f"{name} needs a value: {name} {_OPTIONS[name].placeholder}")
    return arguments[position]


def _with_word(options: dict[str, str], flags: set[str], rest: list[str]) -> CommandLine:
    word = WORDS.get(rest[0]) if rest else None
    if word is None:
        return CommandLine(options, frozenset(flags), None, tuple(rest))
    unknown = [argument for argument in rest[1:] if argument not in word.flags]
    if any(not argument.startswith("-") for argument in unknown):
        return CommandLine(options, frozenset(flags), None, tuple(rest))
    if unknown:
        known = f"; it knows {', '.join(word.flags)}" if word.flags else ""
        raise UsageError(f"`anyclaude {word.name}` does not know {unknown[0]}{known}")
    return CommandLine(options, frozenset({*flags, *rest[1:]}), word.name, ())
