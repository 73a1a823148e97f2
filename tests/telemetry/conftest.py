"""A ledger of a test's own."""

from collections.abc import Generator
from pathlib import Path

import pytest

from anyclaude.telemetry.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Generator[Ledger]:
    opened = Ledger(path)
    yield opened
    opened.close()
