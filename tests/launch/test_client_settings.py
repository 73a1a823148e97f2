import json
from pathlib import Path
from typing import Any

import pytest

from anyclaude.launch.client_settings import Redirect, find_redirects


def write(file: Path, fields: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(fields if isinstance(fields, str) else json.dumps(fields), "utf-8")
    return file


def found(tmp_path: Path, **environ: str) -> list[Redirect]:
    """Managed settings of this machine are not looked at: they are not ours to make."""
    redirects = find_redirects(tmp_path / "project", {"HOME": str(tmp_path / "home")} | environ)
    return [redirect for redirect in redirects if not redirect.wins]


def test_settings_that_redirect_are_found_in_each_file(tmp_path: Path) -> None:
    files = [
        tmp_path / "home" / ".claude" / "settings.json",
        tmp_path / "project" / ".claude" / "settings.json",
        tmp_path / "project" / ".claude" / "settings.local.json",
    ]
    for file in files:
        write(file, {"env": {"ANTHROPIC_BASE_URL": "https://x", "PATH": "/bin"}})

    assert found(tmp_path) == [Redirect(file, "ANTHROPIC_BASE_URL", wins=False) for file in files]


def test_the_clients_own_folder_is_looked_at_where_it_was_moved(tmp_path: Path) -> None:
    write(tmp_path / "home" / ".claude" / "settings.json", {"env": {"ANTHROPIC_MODEL": "x"}})
    file = write(tmp_path / "moved" / "settings.json", {"env": {"CLAUDE_CODE_USE_BEDROCK": "1"}})

    assert found(tmp_path, CLAUDE_CONFIG_DIR=str(tmp_path / "moved")) == [
        Redirect(file, "CLAUDE_CODE_USE_BEDROCK", wins=False)
    ]


@pytest.mark.parametrize("fields", ["{broken", [], 5, {}, {"env": []}, {"env": {}}, {"env": {"PATH": "/bin"}}])
def test_settings_that_redirect_nothing_are_no_finding(tmp_path: Path, fields: Any) -> None:
    write(tmp_path / "project" / ".claude" / "settings.json", fields)

    assert found(tmp_path) == []
