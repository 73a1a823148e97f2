"""A command line split into what is ours and what is Claude Code's, which goes through unchanged.

Options of ours are known anywhere before `--`. A word of ours counts only as the sole word, in the first place:
`anyclaude status` is ours, `anyclaude status of the build` is a prompt, `anyclaude stop 4f2a` is the client's own.
"""

import difflib
import re

from msgspec import Struct

from anyclaude.config.table import SETTINGS
from anyclaude.errors import UsageError


class Command(Struct, frozen=True):
    """A command below a word, such as `why` of `cache`. `operands` shows what may follow it, `n_operands` how many, of
    which `n_needed` must."""

    name: str
    help: str
    operands: str = ""
    n_operands: int = 0
    n_needed: int = 0


class Word(Struct, frozen=True):
    """A command of ours: the flags that it knows besides the options of every launch, options of its own that take a
    value, and the commands below it, of which it needs one unless it `stands_alone`."""

    name: str
    help: str
    flags: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    stands_alone: bool = False

    @property
    def names(self) -> str:
        return "|".join(command.name for command in self.commands)


WORDS: dict[str, Word] = {
    word.name: word
    for word in (
        Word("serve", "run the gateway in the foreground and print its URL and token", ("--json",)),
        Word("status", "the running gateway, its sessions, and the newest turns as measured", ("--json",)),
        Word("stop", "stop the background gateway", ("--force", "--json")),
        Word(
            "models",
            "the models of the chosen or running server, and those on this machine",
            ("--json", "--yes"),
            commands=(
                Command("pull", "download a model of the hub for the engine; it can be broken off", "NAME", 1, 1),
                Command("ls", "the models on this machine: size, context, when a turn last used each"),
                Command("rm", "delete a downloaded model; asks first, --yes does not", "NAME", 1, 1),
                Command("load", "have the engine load a model now", "NAME", 1, 1),
                Command("unload", "have the engine let go of a model, or of all", "[NAME]", 1),
                Command("recommend", "which model suits this machine's memory, and why"),
            ),
            stands_alone=True,
        ),
        Word("config", "every setting, its value, and where it came from", ("--json",)),
        Word(
            "doctor",
            "check client, servers, settings and memory; --engine tries the engine out on this machine",
            ("--json", "--engine"),
        ),
        Word("logs", "the gateway's log; -f follows it", ("-f", "--follow")),
        Word(
            "stats",
            "turns, tokens, hit rate, time saved; --turns, --all, --days N, --session ID, --project FOLDER",
            ("--json", "--turns", "--all"),
            ("--session", "--project", "--days"),
        ),
        Word(
            "cache",
            "what the cache could keep, and what the engine keeps",
            ("--json", "--yes"),
            commands=(
                Command("why", "why the server read again what it read: the section that changed", "[TURN]", 1),
                Command("ls", "the prompts' state that the engine keeps"),
                Command("pin", "keep one of them: the digest or its beginning", "DIGEST", 1, 1),
                Command("unpin", "keep it no longer than others", "DIGEST", 1, 1),
                Command("rm", "delete one of them, and what continues it", "DIGEST", 1, 1),
                Command("clear", "delete all state, replayed turns and the ledger's turns; asks first, --yes does not"),
                Command("verify", "check every file, and of loaded models the answers with and without the cache"),
                Command("path", "the folder that it is in"),
            ),
        ),
        Word(
            "prompt",
            "a recorded turn's prompt in sections",
            ("--json",),
            commands=(
                Command("show", "its sections, with tokens and digests", "[TURN]", 1),
                Command("diff", "what differs between two turns", "[TURN [TURN]]", 2),
            ),
        ),
        Word(
            "trace",
            "requests and answers in full, recorded when you ask for it",
            ("--json",),
            commands=(
                Command("on", "record every turn from now on, words included"),
                Command("off", "stop recording"),
                Command("ls", "what was recorded"),
                Command("show", "one turn: what was asked, what came when", "[TURN]", 1),
                Command("diff", "the prompts of two turns, as text", "[TURN [TURN]]", 2),
                Command("replay", "send a turn again, to any backend, and compare", "[TURN]", 1),
                Command("export", "one turn as one JSON document", "[TURN [FILE]]", 2),
                Command("stats", "how much is recorded, and the limits"),
            ),
        ),
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
_TURN = re.compile(r"\d+|last|req_\w+", re.ASCII)
_ASKED = {"help": "--help", "version": "--version"}
_ABOUT = ("--help", "-h", "--version")  # after a word of the client's they ask about that word
LAUNCH_FLAGS = ("--no-launch", "--dry-run", *_ABOUT)

_OPTIONS = {f"--{setting.option}": setting for setting in SETTINGS if setting.option}


class CommandLine(Struct, frozen=True):
    """`options` by setting name; `word` is a command of ours, with the `command` below it, its `operands` and the
    `values` of its own options; `client` are Claude Code's arguments."""

    options: dict[str, str]
    flags: frozenset[str]
    word: str | None
    client: tuple[str, ...]
    command: str | None = None
    operands: tuple[str, ...] = ()
    values: dict[str, str] = {}


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
            if (bare := _OPTIONS[name].bare) is not None:
                value = value or bare
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
    values, others = _take_values(word, others)
    operands = tuple(argument for argument in others if not argument.startswith("-"))
    command = _command(word, operands)
    n_most = command.n_operands + 1 if command else 0
    if len(operands) > n_most:
        _check_operands(word, command, operands[n_most:])
        if first in CLIENT_WORDS:  # the client's command of the same name, with nothing taken out of it
            return CommandLine(line.options, line.flags.difference(_ABOUT), None, tuple(arguments[word_at:]))
        return line
    flags = frozenset(argument for argument in others if argument.startswith("-"))
    unknown = [flag for flag in others if flag in flags - set(word.flags)]
    unknown += sorted(line.flags & {"--no-launch", "--dry-run"})
    if unknown:
        known = ", ".join((*word.flags, *word.values))
        raise UsageError(
            f"`anyclaude {word.name}` does not know {unknown[0]}" + (f"; it knows {known}" if known else "")
        )
    if not line.flags.intersection(_ABOUT):
        _check_needs(word, command, len(operands) - 1)
    name = command.name if command else None
    return CommandLine(line.options, line.flags | flags, word.name, (), name, operands[1:], values)


def _command(word: Word, operands: tuple[str, ...]) -> Command | None:
    """The command below a word. Raises UsageError for one that is almost one."""
    if not operands or not word.commands:
        return None
    known = {command.name: command for command in word.commands}
    if operands[0] not in known and len(operands) == 1:
        close = difflib.get_close_matches(operands[0], known, n=1, cutoff=0.6)
        if close:
            raise UsageError(
                f"`anyclaude {word.name} {operands[0]}`: did you mean `anyclaude {word.name} {close[0]}`? "
                f"As a prompt: anyclaude -- {word.name} {operands[0]}"
            )
    return known.get(operands[0])


def _check_needs(word: Word, command: Command | None, n_operands: int) -> None:
    if word.commands and command is None and not word.stands_alone:
        raise UsageError(f"`anyclaude {word.name}` needs one of {', '.join(c.name for c in word.commands)}")
    if command is not None and n_operands < command.n_needed:
        raise UsageError(f"a name is missing: anyclaude {word.name} {command.name} {command.operands}")


def _check_operands(word: Word, command: Command | None, extra: tuple[str, ...]) -> None:
    """What names nothing but turns was hardly meant as a prompt."""
    if command is not None and all(_TURN.fullmatch(operand) for operand in extra):
        words = " ".join(part for part in (word.name, command.name, command.operands) if part)
        raise UsageError(f"`{extra[0]}` is one too many: anyclaude {words}")


def _take_values(word: Word, arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """The word's own options that take a value, and the other arguments."""
    values: dict[str, str] = {}
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, has_value, value = argument.partition("=")
        if name not in word.values:
            rest.append(argument)
            continue
        given = value if has_value else next(waiting, None)
        if not given:
            raise UsageError(f"{name} needs a value: {name} {name[2:].upper()}")
        values[name] = given
    return values, rest


def _check_spelling(line: CommandLine) -> None:
    """A single word that is almost one of ours was hardly meant as a prompt."""
    if len(line.client) != 1:
        return
    (word,) = line.client
    if word in _ASKED:
        raise UsageError(f"did you mean `anyclaude {_ASKED[word]}`? As a prompt: anyclaude -- {word}")
    if close := difflib.get_close_matches(word, WORDS, n=2, cutoff=0.8):
        meant = " or ".join(f"`{each}`" for each in close)
        raise UsageError(f"`{word}` is not a command; did you mean {meant}? As a prompt: anyclaude -- {word}")
