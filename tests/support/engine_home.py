"""The real client on the embedded engine: its conversations, what the ledger says of them, and the engine's process."""

import subprocess
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from anyclaude.launch.server import ServerClient
from anyclaude.server.handshake import all_addresses
from anyclaude.telemetry.history import Filter, History
from anyclaude.telemetry.turns import TurnRow
from tests.support.home import Home, make_home
from tests.support.wait import wait_until

Done = subprocess.CompletedProcess[str]
N_BLOCK = 256
_ENGINE = "anyclaude.engine.child"


class EngineHome:
    """One machine of a test's own with a model on it."""

    def __init__(self, home: Home, model: Path) -> None:
        self.home = home
        self.model = model

    @property
    def launch(self) -> list[str]:
        return ["--mode", "mlx", "--model", str(self.model)]

    @property
    def server(self) -> ServerClient:
        (address,) = all_addresses(self.home.runtime)
        return ServerClient(address)

    def conversation(self, *options: str, **environ: str) -> "Conversation":
        return Conversation(self, options, environ)

    def statistics(self) -> dict[str, Any]:
        """As the engine tells them."""
        return self.server.get("/anyclaude/engine")["engine"]

    def engine(self) -> psutil.Process:
        """The process that holds the model."""
        (gateway,) = (psutil.Process(address.pid) for address in all_addresses(self.home.runtime))
        (found,) = (child for child in gateway.children(recursive=True) if _ENGINE in child.cmdline())
        return found

    def wait_until_written(self) -> None:
        """All whole blocks are on disk; the last part of a prompt, less than a block, may wait for a quiet moment."""
        wait_until(lambda: all(map(_is_written, self.blocks())), "the blocks are on disk")

    def blocks(self) -> list[dict[str, Any]]:
        told = self.server.engine("cache.ls")
        assert told is not None
        return told["entries"]

    def kill_engine(self) -> None:
        process = self.engine()
        process.kill()
        wait_until(lambda: not process.is_running(), "the engine is gone")


class Conversation:
    """One session of the client's, turn by turn."""

    def __init__(self, at: EngineHome, options: Sequence[str], environ: dict[str, str]) -> None:
        self._at = at
        self._options = options
        self._environ = environ
        self._has_begun = False
        self.id = str(uuid.uuid4())

    @property
    def arguments(self) -> list[str]:
        """The first time they begin it, then they go on with it."""
        return [*self._at.launch, "--resume" if self._has_begun else "--session-id", self.id, *self._options]

    def say(self, words: str) -> str:
        """The words of the answer."""
        done = self._at.home.run("-p", words, *self.arguments, **self._environ)
        assert done.returncode == 0, done.stdout + done.stderr
        self._has_begun = True
        return done.stdout.rstrip("\n")

    def turns(self, n: int, *, agents: bool = False) -> list[TurnRow]:
        """The `n` turns of the person's conversation that were answered, oldest first; or those of its agents. The
        ledger is written behind."""
        wait_until(lambda: len(self._rows(agents)) >= n, f"the ledger has {n} turns")
        found = [row for row in self._rows(agents) if row.error is None]
        assert len(found) == n, found
        return found

    def failures(self) -> list[str]:
        return [row.error for row in self._rows(False) if row.error]

    def _rows(self, agents: bool) -> list[TurnRow]:
        path = self._at.home.state / "ledger.sqlite3"
        if not path.exists():
            return []
        with History(path) as history:
            rows = history.turns(Filter(session=self.id))
        return [row for row in rows if row.id is not None and (row.agent is not None) is agents]


def n_new(before: TurnRow, after: TurnRow) -> int:
    """Tokens that the later prompt has behind the earlier one and its answer."""
    assert before.tokens_prompt is not None
    assert before.tokens_out is not None
    assert after.tokens_prompt is not None
    return after.tokens_prompt - before.tokens_prompt - before.tokens_out


def n_read(turn: TurnRow) -> int:
    assert turn.tokens_prefilled is not None
    return turn.tokens_prefilled


def assert_reads_only_what_is_new(turns: Sequence[TurnRow], *, more: int = 1) -> None:
    """Each prompt after the first, and `more` tokens at most. Nobody may have asked the same before."""
    assert len(turns) > 1
    for before, after in pairwise(turns):
        assert 0 < n_new(before, after) <= n_read(after) <= n_new(before, after) + more, (before, after)


def _is_written(line: dict[str, Any]) -> bool:
    missing = (line["own_bytes"] - line["stored_bytes"]) / line["own_bytes"] * line["own_tokens"]
    return missing < N_BLOCK


@contextmanager
def make_engine_home(root: Path, model: Path) -> Generator[EngineHome]:
    root.mkdir()
    with make_home(root) as home:
        yield EngineHome(home, model)
