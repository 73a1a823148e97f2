"""Committed turns on disk: found after a restart, bounded, and never the reason for a wrong answer or a failure."""

import sqlite3
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from anyclaude.engine.conversation.committed import Node
from anyclaude.engine.conversation.turn_store import TurnStore

DAY = date(2026, 3, 1)


def node(name: str, parent: Node | None = None, n_ids: int = 3, names: tuple[bytes, ...] = ()) -> Node:
    ids = np.arange(n_ids, dtype=np.uint32)
    return Node(name.encode(), parent, ids, DAY, 2, is_open=parent is not None, digest=b"d", names=names)


def keys(*names: str) -> list[bytes]:
    return [name.encode() for name in names]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "turns.sqlite3"


def test_a_conversation_is_found_after_a_restart_from_its_root_on(file: Path) -> None:
    store = TurnStore(file)
    leaf = node("c", node("b", node("a")))
    store.save(leaf)
    store.close()
    found = TurnStore(file).path(keys("a", "b", "c", "unknown"))
    assert [each.key for each in found] == keys("a", "b", "c")
    assert [each.parent for each in found] == [None, *keys("a", "b")]
    again = found[2].node(None)
    assert (again.ids == leaf.ids).all()
    assert (again.day, again.head_end, again.is_open, again.digest) == (DAY, 2, True, b"d")


def test_an_answer_is_found_by_any_of_its_names(file: Path) -> None:
    store = TurnStore(file)
    store.save(node("b", node("a"), names=(b"call", b"signature")))
    for name in (b"call", b"signature"):
        found = store.named([b"unknown", name])
        assert found is not None
        assert found.key == b"b"
    assert store.named([b"unknown"]) is None


def test_the_file_is_ours_alone(file: Path) -> None:
    TurnStore(file).save(node("a"))
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_conversations_go_whole_and_the_oldest_first(file: Path) -> None:
    now = [0.0]
    store = TurnStore(file, budget_bytes=1_000, clock=lambda: now[0])
    for n in range(4):
        now[0] += 1
        store.save(node(f"{n}b", node(f"{n}a", n_ids=50), n_ids=50, names=(f"name{n}".encode(),)))
    assert store.statistics().nbytes <= 1_000
    assert store.path(keys("0a")) == []
    assert store.named([b"name0"]) is None
    assert len(store.path(keys("3a", "3b"))) == 2


def test_what_is_too_old_goes_when_the_store_is_opened(file: Path) -> None:
    store = TurnStore(file, max_age_s=10, clock=lambda: 100)
    store.save(node("a"))
    store.close()
    assert TurnStore(file, max_age_s=10, clock=lambda: 109).path(keys("a"))
    assert TurnStore(file, max_age_s=10, clock=lambda: 111).path(keys("a")) == []


def test_what_is_cleared_is_nowhere_in_the_file(file: Path) -> None:
    store = TurnStore(file)
    ids = np.full(500, 0x41424344, np.uint32)
    store.save(Node(b"a", None, ids, DAY, 0))
    store.remember_ahead("project", b"fp", ids)
    store.clear()
    assert store.path(keys("a")) == []
    assert store.ahead("project", b"fp") is None
    assert store.statistics().nbytes == 0
    assert not any(b"DCBADCBA" in path.read_bytes() for path in file.parent.iterdir())


def test_the_newest_prompt_of_each_kind_is_kept_and_few_kinds(file: Path) -> None:
    now = [0.0]
    store = TurnStore(file, clock=lambda: now[0])
    for n in range(80):
        now[0] += 1
        store.remember_ahead(f"project {n}", b"fp", np.array([n], np.uint32))
    store.remember_ahead("project 79", b"fp", np.array([5, 6], np.uint32))
    newest = store.ahead("project 79", b"fp")
    assert newest is not None
    assert newest.tolist() == [5, 6]
    assert store.ahead("project 79", b"other model") is None
    assert store.ahead("project 0", b"fp") is None


def test_a_row_that_was_changed_is_not_believed(file: Path) -> None:
    store = TurnStore(file)
    store.save(node("b", node("a"), names=(b"name",)))
    store.remember_ahead("project", b"fp", np.array([5], np.uint32))
    with sqlite3.connect(file) as other:
        other.execute("UPDATE node SET ids = x'00000000' WHERE key = ?", [b"a"])
        other.execute("UPDATE ahead SET ids = x'00000000'")
    other.close()
    assert store.path(keys("a", "b")) == []
    assert store.ahead("project", b"fp") is None
    assert store.named([b"name"]) is not None


@pytest.mark.parametrize(
    "data", [b"no database at all, but long enough to look", b"SQLite format 3\x00" + bytes(4_000)]
)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700)
    file.write_bytes(data)
    store = TurnStore(file)
    store.save(node("a"))
    assert store.path(keys("a"))
    assert file.with_name("turns.sqlite3.damaged").read_bytes() == data


def test_another_version_s_file_is_set_aside(file: Path) -> None:
    TurnStore(file).close()
    with sqlite3.connect(file) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    assert TurnStore(file).statistics().is_kept
    assert file.with_name("turns.sqlite3.damaged").exists()


def test_without_a_file_of_ours_nothing_is_kept_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "link", tmp_path / "folder", tmp_path / "file" / "turns.sqlite3", None):
        store = TurnStore(path)
        store.save(node("a"))
        store.remember_ahead("project", b"fp", np.array([5], np.uint32))
        assert store.path(keys("a")) == []
        assert store.ahead("project", b"fp") is None
        assert not store.statistics().is_kept
        store.clear()
        store.close()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_another_process_holds_costs_what_would_be_kept(file: Path) -> None:
    store = TurnStore(file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    leaf = node("a")
    store.save(leaf)
    assert store.statistics().n_failed == 1
    other.execute("COMMIT")
    other.close()
    assert not leaf.is_saved
    store.save(leaf)
    assert store.path(keys("a"))


def test_two_processes_can_keep_turns_in_one_file(file: Path) -> None:
    first, second = TurnStore(file), TurnStore(file)
    first.save(node("a"))
    second.save(node("b"))
    assert first.path(keys("b"))
    assert second.path(keys("a"))


def test_a_full_disk_costs_what_would_be_kept(file: Path) -> None:
    store = TurnStore(file)
    store.save(node("a"))
    assert store._db is not None
    store._db.execute("PRAGMA max_page_count = 1")  # SQLite takes the present size: nothing more fits
    store.save(node("b", n_ids=1_000_000))
    assert store.statistics().n_failed == 1
    assert store.path(keys("a"))
    assert store.path(keys("b")) == []
