"""Who computes when: counted in tokens, chunks and steps, with a clock that only computing moves."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest

from anyclaude.engine.generation.prefill import CHUNK, SMALL_CHUNK
from anyclaude.engine.generation.scheduler import LONG_WAIT_S, MAX_LIVE, Group
from anyclaude.engine.model.adapter import LayerCache, Live, Model
from anyclaude.wire.frames import Finished, RequestClass, Told
from tests.support.models import Family, random_model
from tests.support.rows import Bench, some_ids
from tests.support.stepping import ahead, alone, began, step_until, told, untimed

KINDS: tuple[Family, ...] = ("qwen3", "qwen3_next", "gemma3")  # cut anywhere, recurrent, sliding window


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: random_model(root / family, family) for family in KINDS}


class Clocked:
    """A model that says how many tokens each call read, and takes as long as it is told."""

    def __init__(self, model: Model, cost: Callable[[int], float]) -> None:
        self._model = model
        self._cost = cost
        self.calls: list[int] = []
        self.now = 0.0

    def __call__(self, tokens: mx.array, *, cache: Sequence[LayerCache]) -> mx.array:
        self.calls.append(tokens.shape[1])
        self.now += self._cost(tokens.shape[1])
        return self._model(tokens, cache=cache)

    def parameters(self) -> Any:
        return self._model.parameters()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def test_cancelled_before_it_began_it_is_never_read(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    first, second = bench.submit(model, some_ids(300)), bench.submit(model, some_ids(400, 1))
    bench.scheduler.cancel(second.id)
    bench.finish()
    assert bench.done == [first]
    assert began(bench) == [first.id]
    assert bench.scheduler.tokens_prefilled == 300


@pytest.mark.parametrize("family", KINDS)
def test_cancelled_while_it_is_read_it_stops_within_a_chunk_and_that_chunk_is_kept(
    folders: dict[Family, Path], family: Family
) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    writing = bench.submit(model, some_ids(40), 30)
    step_until(bench, lambda: writing.generated)
    ids = some_ids(900, 1)
    reading = bench.submit(model, ids)
    step_until(bench, lambda: reading.n_done)
    bench.scheduler.cancel(reading.id)
    bench.finish()
    assert bench.done == [writing]
    assert writing.generated == alone(model, some_ids(40), 30)
    assert bench.scheduler.tokens_prefilled == 40 + SMALL_CHUNK
    again = bench.generate(model, ids)
    assert (again.n_cached, again.n_prefilled) == (SMALL_CHUNK, 900 - SMALL_CHUNK)
    assert again.generated == alone(model, ids, 8)


@pytest.mark.parametrize("family", KINDS)
def test_cancelled_while_it_writes_alone_it_writes_no_more_and_all_of_it_is_kept(
    folders: dict[Family, Path], family: Family
) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    row = bench.submit(model, some_ids(300), 1_000)
    step_until(bench, lambda: len(row.generated) == 5)
    bench.scheduler.cancel(row.id)
    assert bench.scheduler.is_idle
    assert bench.done == [row]
    assert not any(isinstance(report, Finished) for report in bench.reports)
    follow_up = bench.generate(model, [*some_ids(300), *row.generated, *some_ids(20, 1)])
    assert (follow_up.n_cached, follow_up.n_prefilled) == (305, 20)


@pytest.mark.parametrize("family", KINDS)
def test_cancelled_in_a_batch_the_others_go_on_and_say_the_same(folders: dict[Family, Path], family: Family) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    rows = [bench.submit(model, some_ids(200 + 40 * n, n), 20) for n in range(3)]
    step_until(bench, lambda: all(row.generated for row in rows))
    assert bench.scheduler.statistics().batches == 1
    n_written = len(rows[1].generated)
    bench.scheduler.cancel(rows[1].id)
    bench.finish()
    assert bench.done == [rows[1], rows[0], rows[2]]
    assert len(rows[1].generated) == n_written
    for n in (0, 2):
        assert rows[n].generated == alone(model, some_ids(200 + 40 * n, n), 20)
    assert rows[1].generated == alone(model, some_ids(240, 1), n_written)


def test_a_stream_keeps_half_its_speed_while_a_long_prompt_is_read(folders: dict[Family, Path]) -> None:
    """A step costs 1, a chunk of 512 tokens 32: as many steps have to come before the next chunk."""
    clock = cast("Clocked", None)
    bench = Bench(clock=lambda: clock.now)
    model = bench.model(folders["qwen3"])
    model.model = clock = Clocked(model.model, lambda n: max(1.0, n / 16))
    writing = bench.submit(model, some_ids(40), 500)
    step_until(bench, lambda: len(writing.generated) == 3)
    reading = bench.submit(model, some_ids(5 * SMALL_CHUNK + 1, 1), 1)
    clock.calls.clear()
    step_until(bench, lambda: reading.generated)
    chunks = [place for place, n in enumerate(clock.calls) if n > 1]
    assert [clock.calls[place] for place in chunks] == [SMALL_CHUNK] * 5
    gaps = [after - before - 1 for before, after in pairwise(chunks)]
    assert gaps == [SMALL_CHUNK / 16] * 4


def test_chunks_are_large_when_nobody_writes(folders: dict[Family, Path]) -> None:
    clock = cast("Clocked", None)
    bench = Bench(clock=lambda: clock.now)
    model = bench.model(folders["qwen3"])
    model.model = clock = Clocked(model.model, lambda n: n)
    bench.generate(model, some_ids(CHUNK + 300), 3)
    assert clock.calls == [CHUNK, 299, 1, 1, 1, 1]


def test_main_before_side_before_agent_before_what_is_ahead_of_the_user(
    folders: dict[Family, Path], tmp_path: Path
) -> None:
    bench = untimed()
    model, other = bench.model(folders["qwen3"]), bench.model(random_model(tmp_path / "other", "qwen3", seed=1))
    prepared = ahead(bench, other, some_ids(50))
    classes: tuple[RequestClass, ...] = ("agent", "side", "main", "side", "main")
    rows = [bench.submit(model, some_ids(300, n), 2, request_class=each) for n, each in enumerate(classes)]
    bench.finish()
    assert began(bench) == [rows[n].id for n in (2, 4, 1, 3, 0)]
    assert bench.reports[-1] == Told(prepared.id, {"n_read": 49, "n_cached": 0, "n_prompt": 50})


def test_of_two_main_requests_the_one_that_is_done_first_is_read_first(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    known = some_ids(1_500, 5)
    bench.generate(model, known)
    long = bench.submit(model, some_ids(3 * CHUNK, 1))
    step_until(bench, lambda: long.n_done)
    short, continued = bench.submit(model, some_ids(200, 2)), bench.submit(model, [*known, *some_ids(50, 3)])
    bench.finish()
    assert began(bench)[-3:] == [long.id, continued.id, short.id]
    assert long.n_prefilled == 3 * CHUNK
    assert [row.id for row in bench.done][-1] == long.id


def test_a_long_prompt_that_has_waited_for_a_minute_goes_first(folders: dict[Family, Path]) -> None:
    now = [0.0]
    bench = Bench(clock=lambda: now[0])
    model = bench.model(folders["qwen3"])
    long = bench.submit(model, some_ids(900, 1))
    now[0] = LONG_WAIT_S
    short = bench.submit(model, some_ids(200, 2))
    bench.finish()
    assert began(bench) == [long.id, short.id]


@pytest.mark.parametrize("family", KINDS)
def test_who_is_overtaken_keeps_what_was_read(folders: dict[Family, Path], family: Family) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    agent = bench.submit(model, some_ids(CHUNK + 200), 3, request_class="agent")
    bench.scheduler.step()
    assert agent.n_done == CHUNK
    main = bench.submit(model, some_ids(100, 1), 3)
    bench.finish()
    assert bench.done == [main, agent]
    assert (agent.n_cached, agent.n_prefilled) == (0, CHUNK + 200)
    assert bench.scheduler.tokens_prefilled == CHUNK + 300
    assert agent.generated == alone(model, some_ids(CHUNK + 200), 3)


@pytest.mark.parametrize("family", KINDS)
def test_what_is_ahead_of_the_user_gives_way_without_losing_its_work(
    folders: dict[Family, Path], family: Family
) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    prepared = ahead(bench, model, some_ids(CHUNK + 200))
    bench.scheduler.step()
    row = bench.generate(model, [*some_ids(CHUNK + 200), *some_ids(50, 1)], 3)
    assert told(bench) == [Told(prepared.id, {"n_read": CHUNK, "n_cached": 0, "n_prompt": CHUNK + 200})]
    assert (row.n_cached, row.n_prefilled) == (CHUNK, 250)
    assert bench.scheduler.tokens_prefilled == CHUNK + 250


@pytest.mark.parametrize("family", KINDS)
def test_what_was_read_ahead_of_the_user_is_there_to_the_token(folders: dict[Family, Path], family: Family) -> None:
    bench = untimed()
    model = bench.model(folders[family])
    ahead(bench, model, some_ids(400))
    bench.finish()
    row = bench.generate(model, [*some_ids(399), *some_ids(50, 1)])
    assert (row.n_cached, row.n_prefilled) == (399, 50)


def test_nothing_is_read_ahead_of_the_user_while_somebody_writes(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    writing = bench.submit(model, some_ids(40), 10)
    step_until(bench, lambda: writing.generated)
    prepared = ahead(bench, model, some_ids(300, 1))
    step_until(bench, lambda: len(writing.generated) == 9)
    assert not prepared.is_begun
    bench.finish()
    assert told(bench)[0].value["n_read"] == 299


@pytest.mark.parametrize(
    ("lengths", "fits"),
    [
        ((20_000, 300), False),
        ((300, 20_000), False),
        ((20_000, 18_000), True),
        ((20_000, 12_000), True),
        ((20_000, 11_990), False),
        ((1_000, 40), True),
        ((1_400, 300), False),
        ((20_000, 19_000, 18_000, 300), False),
    ],
)
def test_rows_share_a_batch_while_little_of_it_is_padding(
    folders: dict[Family, Path], lengths: tuple[int, ...], fits: bool
) -> None:
    """At most 1,024 tokens, or a quarter of those that are not padding."""
    bench = untimed()
    model = bench.model(folders["qwen3"])
    *inside, joining = [bench.row(model, np.zeros(n, np.uint32)) for n in lengths]  # pyright: ignore[reportArgumentType]
    assert Group(model, Live(model.model), dict(enumerate(inside))).takes(joining) == fits


def test_rows_of_unlike_length_take_turns_and_say_the_same(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    rows = [bench.submit(model, some_ids(n, n), 12) for n in (1_800, 100)]
    step_until(bench, lambda: all(row.generated for row in rows))
    assert bench.scheduler.statistics().batches == 2
    before = [len(row.generated) for row in rows]
    bench.scheduler.step()
    assert [len(row.generated) for row in rows] == [n + 1 for n in before]
    bench.finish()
    assert bench.copied.joined == 0
    for row, n in zip(rows, (1_800, 100), strict=True):
        assert row.generated == alone(model, some_ids(n, n), 12)


def test_rows_of_two_models_never_share_a_batch(folders: dict[Family, Path], tmp_path: Path) -> None:
    bench = untimed()
    models = [bench.model(folders["qwen3"]), bench.model(random_model(tmp_path / "other", "qwen3", seed=1))]
    rows = [bench.submit(model, some_ids(60), 9) for model in models]
    step_until(bench, lambda: all(row.generated for row in rows))
    assert bench.scheduler.statistics().batches == 2
    bench.finish()
    assert rows[0].generated != rows[1].generated
    for row, model in zip(rows, models, strict=True):
        assert row.generated == alone(model, some_ids(60), 9)


def test_no_more_rows_write_at_a_time_than_may(folders: dict[Family, Path]) -> None:
    bench = untimed()
    model = bench.model(folders["qwen3"])
    rows = [bench.submit(model, some_ids(5, n), 12 + n) for n in range(MAX_LIVE + 3)]
    most = 0
    while not bench.scheduler.is_idle:
        bench.scheduler.step()
        most = max(most, bench.scheduler.statistics().writing)
    assert most == MAX_LIVE
    assert sorted(row.id for row in bench.done) == [row.id for row in rows]
