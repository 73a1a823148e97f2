"""The command: parse, read the settings, hand over. Every failure is one message and an exit status."""

import errno
import os
import sys
from typing import TYPE_CHECKING

from anyclaude.errors import AnyclaudeError
from anyclaude.launch.arguments import CommandLine, parse

if TYPE_CHECKING:
    from anyclaude.paths import Folders


def run() -> None:
    """The console script."""
    try:
        status = main(sys.argv[1:])
        print(end="", flush=True)  # without a standard output, nothing
    except AnyclaudeError as error:
        print(f"anyclaude: {error.message}", file=sys.stderr)
        status = error.exit_code
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        # Whoever read our output has enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EBADF, errno.EIO):
            raise
        print(f"anyclaude: cannot write to standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 1
    sys.exit(status)


def main(arguments: list[str]) -> int:
    """Each command's module is imported when it is used: `--help` answers at once."""
    line = parse(arguments)
    if line.flags & {"--help", "-h"}:
        from anyclaude.cli.help import help_text

        print(help_text(), end="")
        return 0
    return _run(line)


def _run(line: CommandLine) -> int:
    from anyclaude.config.environment import own_folders

    folders = own_folders()
    match line.word:
        case "status":
            from anyclaude.cli.status import status

            return status(line, folders)
        case "stop":
            from anyclaude.cli.status import stop

            return stop(line, folders)
        case "logs":
            from anyclaude.cli.logs import logs

            return logs(line, folders)
        case "stats":
            from anyclaude.cli.stats import stats

            return stats(line, folders)
        case "cache":
            from anyclaude.cli.cache import cache

            return cache(line, folders)
        case "prompt":
            from anyclaude.cli.prompt import prompt

            return prompt(line, folders)
        case "doctor":
            from anyclaude.cli.doctor import doctor

            return doctor(line, folders)
        case _:
            return _run_with_settings(line, folders)


def _run_with_settings(line: CommandLine, folders: "Folders") -> int:
    """What the rest needs: a file with a mistake in it must not keep a person from `stop` or `doctor`."""
    from anyclaude.config.environment import environment
    from anyclaude.config.settings import read_settings

    environ = environment()
    settings = read_settings(line.options, environ, folders.settings_file)
    if "--version" in line.flags:
        from anyclaude.cli.version import print_version

        return print_version(settings, environ)
    match line.word:
        case "serve":
            from anyclaude.cli.serve import serve

            return serve(line, settings, folders, environ)
        case "trace":
            from anyclaude.cli.trace import trace

            return trace(line, settings, folders, environ)
        case "models":
            from anyclaude.cli.models import models

            return models(line, settings, folders, environ)
        case "config":
            from anyclaude.cli.config import show_config

            return show_config(line, settings, folders, environ)
        case _:
            from anyclaude.cli.launch import launch

            return launch(line, settings, folders, environ)
