"""Disks that refuse: each in a process of its own, whose limits and rights are set before it writes."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GO_ON = """
import os, resource, subprocess, sys
from pathlib import Path
from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.limits import StoreLimits
from anyclaude.engine.cache.store import BlockStore
from tests.engine.cache.states import SumCodec, assert_right, ids_of, maker
import anyclaude.engine.cache.store

folder = Path(sys.argv[1])
tokens = ids_of(range(3000))

def opened(retry_s=0.0):
    store = BlockStore(folder, StoreLimits(keep_free_bytes=0), retry_s=retry_s)
    return BlockCache(1 << 30, store, SumCodec(), n_tokens=1000)

def found(cache, expected):
    with cache.match(b"model", tokens) as hit:
        cache.load(hit)
        assert_right(hit, tokens)
        assert hit.n_tokens == expected, hit.n_tokens
    cache.check_integrity()

def put(cache):
    assert cache.put(b"model", tokens, 0, maker(tokens))
    cache.flush(20)
    found(cache, 3000)
    return cache.statistics().store
"""


def go_on(folder: Path, then: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", GO_ON + then, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr


def test_a_file_that_cannot_grow_leaves_nothing_behind_and_is_written_once_it_can(tmp_path: Path) -> None:
    go_on(
        tmp_path / "blocks",
        """
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
cache = opened()
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
figures = put(cache)
assert figures.n_failed > 0, figures
assert figures.n_files == 0 and not list(folder.glob("*.kv")) and not list(folder.glob(".*.tmp"))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert cache.flush(20)
assert cache.flush(20)
assert len(list(folder.glob("*.kv"))) == 3
cache.close(10)
found(opened(), 3000)
""",
    )


def test_a_full_disk_is_no_fault_of_a_turn(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k,mode=0700", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        (disk / "blocks").mkdir(mode=0o700)
        go_on(
            disk / "blocks",
            """
cache = opened()
ballast = folder.parent / "ballast"
ballast.write_bytes(bytes(int(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize) - 20_000))
figures = put(cache)
assert figures.n_failed > 0, figures
assert not list(folder.glob(".*.tmp"))
ballast.unlink()
cache.flush(20)
assert cache.flush(20)
cache.close(10)
found(opened(), 3000)
""",
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    go_on(
        tmp_path / "blocks",
        """
cache = opened()
put(cache)
cache.close(10)
for name in ("index.sqlite3-wal", "index.sqlite3-shm"):
    (folder / name).unlink(missing_ok=True)
if os.getuid() == 0:
    subprocess.run(["chown", "-R", "nobody", str(folder)], check=True)
    for above in list(folder.parents)[:-1]:
        if "pytest" in str(above):
            above.chmod(0o755)
    os.seteuid(65534)
    os.getuid = os.geteuid  # whose the folder is said to be
folder.chmod(0o500)
again = opened()
found(again, 3000)
more = ids_of(range(5000, 7000))
assert again.put(b"model", more, 0, maker(more))
assert not again.flush(1)
figures = again.statistics().store
assert figures.is_read_only and "cannot be written" in figures.problem, figures
assert figures.n_files == 3, figures
again.close(5)
""",
    )
