import threading
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from anyclaude.telemetry.write_behind import WAITING, WAITING_BYTES, WriteBehind

LIMIT_S = 60.0


@contextmanager
def busy(behind: WriteBehind) -> Generator[None]:
    """Its thread is in the middle of a work that lasts as long as the block."""
    has_begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        has_begun.set()
        assert may_end.wait(LIMIT_S)

    behind.put(work)
    assert has_begun.wait(LIMIT_S)
    try:
        yield
    finally:
        may_end.set()


class Ended:
    """What `at_end` was called for."""

    def __init__(self) -> None:
        self.n_calls = 0
        self.was_called = threading.Event()

    def __call__(self) -> None:
        self.n_calls += 1
        self.was_called.set()


def test_work_is_done_in_order_by_another_thread() -> None:
    done: list[tuple[int, int]] = []
    behind = WriteBehind("the book", Ended())
    for n in range(100):
        behind.put(lambda n=n: done.append((n, threading.get_ident())))
    behind.flush()

    assert [n for n, _ in done] == list(range(100))
    assert {thread for _, thread in done}.isdisjoint({threading.get_ident()})
    behind.close()


def test_nothing_waits_for_the_work() -> None:
    behind, done = WriteBehind("the book", Ended()), list[int]()
    with busy(behind):
        assert behind.put(lambda: done.append(1))
        assert done == []
    behind.flush()

    assert done == [1]
    behind.close()


def test_what_fails_is_lost_alone_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    behind, done = WriteBehind("the book", Ended()), list[int]()
    for _ in range(3):
        behind.put(lambda: done.append(1 // 0))
        behind.put(lambda: done.append(1))
    behind.close()

    assert (behind.n_lost, done) == (3, [1, 1, 1])
    assert [record.getMessage() for record in caplog.records] == [
        "the book cannot be written: integer division or modulo by zero"
    ]


def test_what_waits_has_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    behind, done = WriteBehind("the book", Ended()), list[int]()
    with busy(behind):
        accepted = [behind.put(lambda: done.append(1)) for _ in range(WAITING + 7)]
    behind.close()

    assert accepted == [True] * WAITING + [False] * 7
    assert (len(done), behind.n_lost) == (WAITING, 7)
    assert [record.getMessage() for record in caplog.records] == [
        "the book cannot be written: too much waits to be written"
    ]


def test_closing_does_what_waits_and_then_the_last_thing() -> None:
    ended, done = Ended(), list[int]()
    behind = WriteBehind("the book", ended)
    with busy(behind):
        for _ in range(50):
            behind.put(lambda: done.append(ended.n_calls))
    behind.close()
    behind.close()

    assert (done, ended.n_calls) == ([0] * 50, 1)


@pytest.mark.parametrize("n_waiting", [1, WAITING])
def test_closing_waits_no_longer_than_its_limit_and_the_rest_is_lost(n_waiting: int) -> None:
    ended, done = Ended(), list[int]()
    behind = WriteBehind("the book", ended)
    with busy(behind):
        for _ in range(n_waiting):
            behind.put(lambda: done.append(1))
        behind.close(limit_s=0.01)
        assert not ended.was_called.is_set()

    assert ended.was_called.wait(LIMIT_S)
    assert (done, behind.n_lost) == ([], n_waiting)


def test_what_comes_after_closing_is_counted_and_nobody_waits_for_it() -> None:
    behind = WriteBehind("the book", Ended())
    behind.close()

    assert not behind.put(lambda: None)
    behind.flush()
    assert behind.n_lost == 1


def test_what_waits_is_bounded_by_what_it_keeps_in_memory() -> None:
    behind, done = WriteBehind("the book", Ended()), list[str]()
    with busy(behind):
        assert behind.put(lambda: done.append("large"), WAITING_BYTES - 10)
        assert not behind.put(lambda: done.append("too much"), 11)
        assert behind.put(lambda: done.append("small"), 10)
        assert behind.put(lambda: done.append("nothing"))
    behind.flush()
    assert behind.put(lambda: done.append("later"), WAITING_BYTES)
    behind.close()

    assert done == ["large", "small", "nothing", "later"]
    assert behind.n_lost == 1


def test_what_fails_keeps_nothing_in_memory() -> None:
    behind, done = WriteBehind("the book", Ended()), list[int]()
    behind.put(lambda: done.append(1 // 0), WAITING_BYTES)
    behind.flush()
    assert behind.put(lambda: done.append(1), WAITING_BYTES)
    behind.close()

    assert done == [1]
