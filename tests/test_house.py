"""Rules of the house that no linter knows."""

import re
from pathlib import Path

import anyclaude

PACKAGE = Path(anyclaude.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def _using(pattern: str) -> set[str]:
    """The rooms, or top-level modules, whose code matches."""
    found = [path.relative_to(PACKAGE) for path in MODULES if re.search(pattern, path.read_text("utf-8"))]
    return {path.parts[0] for path in found}


def test_the_environment_is_read_in_config_and_launch_only() -> None:
    assert _using(r"os\.(environ|getenv)") <= {"config", "launch"}


def test_no_file_holds_two_ideas_and_no_name_says_nothing() -> None:
    assert [path.name for path in MODULES if len(path.read_text("utf-8").splitlines()) > 350] == []
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "base"}
    assert not vague & {path.stem for path in MODULES}


def test_every_module_begins_with_what_it_is_for() -> None:
    assert [path.name for path in MODULES if not path.read_text("utf-8").startswith('"""')] == []


def test_a_broad_except_raises_again_or_stands_at_an_edge() -> None:
    broad = re.compile(r"^( *)except (?:Base)?Exception\b.*\n((?:\1 +.*\n|\n)+)", re.MULTILINE)
    blocks = [(path.name, block[2]) for path in MODULES for block in broad.finditer(path.read_text("utf-8"))]
    assert blocks
    edges = {"write_behind.py", "threads.py"}
    assert {name for name, body in blocks if not re.search(r"^ *raise$", body, re.MULTILINE)} <= edges
