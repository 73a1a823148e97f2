"""The documents say what the code does: names, paths, links and help are compared with it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyclaude.backends.kinds import KINDS
from anyclaude.backends.seam import Target
from anyclaude.cli.help import help_text
from anyclaude.config.settings import read_settings
from anyclaude.config.table import SETTINGS, Setting
from anyclaude.launch.choice import Choice
from anyclaude.launch.overlay import Door, overlay
from tests.docs.regenerate import COMMANDS, with_help

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "anyclaude"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("demo/*.md"), *ROOT.glob("bench/*.md")])
REQUEST_ROOMS = ("wire", "prompt", "translate", "backends", "routing", "server", "engine")
TRIED = {"server": "real server", "transcript": "transcripts of its format"}

_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def code_words(text: str) -> set[str]:
    return set(_CODE.findall(_FENCE.sub("", text)))


def section(text: str, heading: str) -> str:
    """What stands below a second-level heading, up to the next one."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def anchors(document: Path) -> set[str]:
    """The fragments that a heading answers to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def relative_links() -> Iterator[tuple[Path, str]]:
    for document in DOCUMENTS:
        for link in _LINK.findall(_FENCE.sub("", document.read_text("utf-8"))):
            if "://" not in link and not link.startswith("mailto:"):
                yield document, link


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_described_by_its_three_names(setting: Setting) -> None:
    rows = section(read("docs/configuration.md"), "Settings").splitlines()
    row = next((row for row in rows if row.startswith(f"| `{setting.name}` |")), None)
    assert row is not None, f"docs/configuration.md has no row for {setting.name}"
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == f"`{setting.variable}`"
    assert cells[2] == (f"`--{setting.option}`" if setting.option else "none")
    assert cells[4] == ("yes" if setting.per_backend else "")


def test_no_setting_is_described_that_does_not_exist() -> None:
    rows = section(read("docs/configuration.md"), "Settings").splitlines()
    named = {row.split("`")[1] for row in rows if row.startswith("| `")}
    assert named == {setting.name for setting in SETTINGS}


def test_the_example_of_a_settings_file_can_be_read(tmp_path: Path) -> None:
    example = section(read("docs/configuration.md"), "config.toml").partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "config.toml"
    file.write_text(example, encoding="utf-8")
    settings = read_settings({}, {}, file)
    assert settings.mode in settings.backend_names
    assert all(read_settings({"mode": name}, {}, file).kind in KINDS for name in settings.backend_names)


def test_every_key_that_the_client_is_given_is_described() -> None:
    target = Target(kind="ollama", base_url="http://127.0.0.1:11434", model="m", models=("m",), max_output_tokens=8192)
    fields = overlay(Door("http://127.0.0.1:1", "t"), Choice(target, "m", 65_536), no_proxy="127.0.0.1")
    described = code_words(section(read("docs/configuration.md"), "What Claude Code is told"))
    keys = set(fields["env"]) | {f"permissions.{key}" for key in fields["permissions"]}
    keys |= set(fields) - {"env", "permissions"}
    assert sorted(keys - described) == []


def test_every_file_that_anatomy_names_exists() -> None:
    named = [word for word in code_words(read("docs/anatomy.md")) if re.fullmatch(r"[\w./-]+\.(py|md|toml)", word)]
    assert named
    missing = [word for word in named if not (PACKAGE / word).exists() and not (ROOT / word).exists()]
    assert missing == []


@pytest.mark.parametrize("room", REQUEST_ROOMS)
def test_anatomy_names_every_module_that_a_request_meets(room: str) -> None:
    paths = [path for path in (PACKAGE / room).rglob("*.py") if path.name != "__init__.py"]
    modules = {path.relative_to(PACKAGE).as_posix() for path in paths}
    assert sorted(modules - code_words(read("docs/anatomy.md"))) == []


def test_every_kept_promise_names_a_test_that_exists() -> None:
    rows = [row for row in section(read("docs/promises.md"), "Kept").splitlines() if row.startswith("| ")]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert promises
    missing: list[str] = []
    for row in promises:
        files = [ROOT / name for name in re.findall(r"\(\.\./(tests/[\w/]+\.py)\)", row)]
        assert files, row
        missing += [str(file.relative_to(ROOT)) for file in files if not file.exists()]
        text = "".join(file.read_text("utf-8") for file in files if file.exists())
        missing += [name for name in re.findall(r"`(test_\w+)`", row) if f"def {name}(" not in text]
    assert missing == []


def test_every_file_that_promises_name_exists() -> None:
    named = [word for word in code_words(read("docs/promises.md")) if re.fullmatch(r"[\w/]+\.(py|toml|lock)", word)]
    assert [word for word in named if not (ROOT / word).exists()] == []


def test_help_in_the_documents_is_what_the_command_prints() -> None:
    document = COMMANDS.read_text("utf-8")
    assert help_text() in document
    assert with_help(document, help_text()) == document, "run: make docs"


def test_every_relative_link_leads_somewhere() -> None:
    broken: list[str] = []
    for document, link in relative_links():
        path, _, fragment = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(f"{document.relative_to(ROOT)}: {link}")
    assert broken == []


def test_set_up_needs_two_commands_and_no_other() -> None:
    text = section(read("README.md"), "Set-up")
    commands = [line for fence in _FENCE.findall(text) for line in fence.splitlines()[1:-1]]
    assert commands == ["make demo", "make test"]
    assert {word for word in code_words(text) if word.split()[0] in ("make", "pip", "npm", "uv")} <= set(commands) | {
        "make"
    }


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    named = {
        match[1]
        for document in DOCUMENTS
        for match in re.finditer(r"(?:`|^)make ([a-z]+)(?:`|$)", document.read_text("utf-8"), re.MULTILINE)
    }
    assert named
    assert sorted(named - targets) == []


@pytest.mark.parametrize("name", KINDS)
def test_readme_tells_how_far_each_mode_was_tested(name: str) -> None:
    rows = section(read("README.md"), "Modes").splitlines()
    row = next((row for row in rows if row.startswith(f"| `{name}` |")), "")
    assert row.rstrip(" |").endswith(TRIED[KINDS[name].tried])


def test_quick_start_gives_each_start_line_as_the_help_does() -> None:
    text = read("docs/quick-start.md")
    assert [kind.name for kind in KINDS.values() if kind.ports and kind.hint not in text] == []


def test_contributing_lists_every_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert sorted(rooms - code_words(section(read("CONTRIBUTING.md"), "Rooms"))) == []
