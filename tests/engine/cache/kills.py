"""Kill -9 of a writing process, then a look at what it left."""

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import Struct

from tests.engine.cache.states import assert_right, ids_of
from tests.engine.cache.writer import MODEL, opened, prompt

ROOT = Path(__file__).parents[3]
LOOKUPS = 15


class Left(Struct, frozen=True):
    """After one kill: `n_temporary` files of a cut write, `n_set_aside` by the next process, `n_tokens` it found."""

    n_files: int
    n_temporary: int
    n_set_aside: int
    n_tokens: int
    n_asked: int


def killed(folder: Path, n_kills: int, seed: int = 0) -> Iterator[Left]:
    """Raises AssertionError where anything wrong is answered or the tree is not sound."""
    chance = random.Random(seed)
    for number in range(n_kills):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.cache.writer", str(folder), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            assert process.stdout
            assert process.stdout.readline() == b"open\n", process.communicate()[1].decode()
            with pytest.raises(subprocess.TimeoutExpired):  # it never ends by itself
                process.wait(chance.uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, process.communicate()[1].decode()
        yield _look(folder, chance)


def _look(folder: Path, chance: random.Random) -> Left:
    n_temporary = len(list(folder.glob(".*.tmp")))
    cache = opened(folder)
    n_asked = n_tokens = 0
    for needs_snapshot in (False, True):
        for _ in range(LOOKUPS):
            tokens = prompt(chance)
            with cache.match(MODEL, ids_of(tokens), needs_snapshot=needs_snapshot) as hit:
                cache.load(hit)
                assert_right(hit, tokens)
                n_asked += len(tokens)
                n_tokens += hit.n_tokens
    cache.check_integrity()
    figures = cache.statistics().store
    assert figures
    assert not figures.problem
    cache.close(10)
    return Left(figures.n_files, n_temporary, figures.n_set_aside, n_tokens, n_asked)
