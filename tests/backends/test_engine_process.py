"""The engine's process from its server's side: a real process that speaks by a script, on a real socket pair."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyclaude.backends.engine_child import END_S, how_it_ended
from anyclaude.backends.engine_inbox import MOST, Inbox
from anyclaude.backends.engine_process import EngineProcess, ask_once
from anyclaude.errors import (
    ApiError,
    BackendFailed,
    BackendTimeout,
    InvalidRequest,
    Missing,
    Overloaded,
    PromptTooLong,
)
from anyclaude.wire.frames import (
    Ask,
    Began,
    CallPiece,
    Capabilities,
    Chat,
    CountTokens,
    Finished,
    Generate,
    Piece,
    Prefilled,
    Report,
    Told,
)
from tests.support.scripted_engine import (
    ANSWER,
    BEGAN,
    CANCELLED,
    FINISHED,
    LOADED,
    READY,
    Life,
    ScriptedEngine,
    failed,
    text,
)
from tests.support.wait import wait_until

T = TypeVar("T")
GENERATE = Generate(0, "/models/one", Chat(()), 100)
HOLD = [BEGAN, CANCELLED]


def running(engine: ScriptedEngine, work: Callable[[EngineProcess], Awaitable[T]]) -> T:
    """With one process for all of it, which is gone afterwards."""

    async def run() -> T:
        process = EngineProcess(engine.command)
        try:
            with anyio.fail_after(60):
                return await work(process)
        finally:
            await process.close()

    result = anyio.run(run)
    assert all(engine.has_gone(pid) for pid in engine.pids)
    return result


async def answer(process: EngineProcess, silence_s: float = 60) -> list[Report]:
    async with aclosing(process.request(GENERATE, silence_s=silence_s)) as reports:
        return [report async for report in reports]


async def read(reports: AsyncIterator[Report], found: list[Report]) -> None:
    """Into `found`, which also has what comes before an error."""
    while not found or not isinstance(found[-1], Finished):
        found.append(await anext(reports))


async def failure(process: EngineProcess) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await answer(process)
    return caught.value


def words(reports: list[Report]) -> str:
    return "".join(report.text for report in reports if isinstance(report, Piece))


def test_it_starts_on_first_use_and_answers_each_request_with_its_own_reports(tmp_path: Path) -> None:
    engine = ScriptedEngine(
        tmp_path, {"generate": [[BEGAN, {"wait": "first"}, text("one"), FINISHED], [BEGAN, text("two"), FINISHED]]}
    )

    async def work(process: EngineProcess) -> list[str]:
        assert not process.is_running
        assert not engine.pids
        found: list[str] = []

        async def first() -> None:
            found.append(words(await answer(process)))

        async with anyio.create_task_group() as group:
            group.start_soon(first)
            await anyio.to_thread.run_sync(engine.wait_for, "generate")
            found.append(words(await answer(process)))
            await anyio.to_thread.run_sync(engine.open, "first")
        assert process.statistics().device == "scripted"
        return found

    assert running(engine, work) == ["two", "one"]
    assert len(engine.pids) == 1
    assert len({frame["id"] for frame in engine.seen()}) == 2


def test_requests_that_come_together_start_one_process(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)

    async def work(process: EngineProcess) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(answer, process)

    running(engine, work)
    assert len(engine.pids) == 1
    assert len(engine.seen("generate")) == 20


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"kill": "SIGKILL"}, "was ended by signal 9 (SIGKILL)"),
        ({"kill": "SIGABRT"}, "was ended by signal 6 (SIGABRT)"),
        ({"exit": 3}, "ended with exit status 3"),
        ({"exit": 0}, "ended with exit status 0"),
        ({"close": True}, "closed its socket"),
        ({"raw": "Traceback (most recent call last):"}, "sent what is not a frame"),
        ({"raw": "\0\0\0\x03\x81\xa4x"}, "sent what is not a frame"),
        ({"type": "nonsense"}, "sent what is not a frame"),
        ({"type": "ready", "version": "0.0.0", "mlx": "", "device": ""}, "is version 0.0.0"),
    ],
    ids=["killed", "aborted", "exit", "end", "closed", "text", "bytes", "unknown", "another version"],
)
def test_its_death_ends_every_running_request_within_a_second_and_the_next_is_served(
    tmp_path: Path, step: Life, says: str
) -> None:
    engine = ScriptedEngine(
        tmp_path, {"generate": [HOLD, HOLD, [BEGAN, step, CANCELLED]], "stays": "close" in step}, {}
    )

    async def work(process: EngineProcess) -> None:
        errors: list[tuple[ApiError, float]] = []
        started = 0.0

        async def held() -> None:
            errors.append((await failure(process), anyio.current_time()))

        async with anyio.create_task_group() as group:
            group.start_soon(held)
            group.start_soon(held)
            await anyio.to_thread.run_sync(engine.wait_for, "generate", 2)
            started = anyio.current_time()
            group.start_soon(held)
        assert len(errors) == 3
        for error, at in errors:
            assert says in error.message
            assert at - started < 1.0 + 0.5
        assert words(await answer(process)) == "hello"
        assert process.statistics().n_ends == 1
        assert says in (process.statistics().last_end or "")

    running(engine, work)
    assert len(engine.pids) == 2


def test_a_kill_from_outside_is_overloaded_for_those_that_run(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [HOLD]}, {})

    async def work(process: EngineProcess) -> None:
        async with aclosing(process.request(GENERATE)) as reports:
            assert isinstance(await anext(reports), Began)
            killed_at = anyio.current_time()
            engine.kill()
            with pytest.raises(Overloaded, match="is started again") as caught:
                await anext(reports)
            assert caught.value.status == 529
            assert anyio.current_time() - killed_at < 1.0
        assert not process.is_running
        assert words(await answer(process)) == "hello"

    running(engine, work)


def test_what_arrived_before_the_end_is_read_before_its_error(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[*ANSWER[:-1], {"kill": "SIGKILL"}, CANCELLED]]})

    async def work(process: EngineProcess) -> str:
        found: list[Report] = []
        async with aclosing(process.request(GENERATE)) as reports:
            with pytest.raises(Overloaded):
                await read(reports, found)
        return words(found)

    assert running(engine, work) == "hello"


def test_an_answer_that_is_whole_when_it_dies_is_whole(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[*ANSWER, {"exit": 1}]]}, {})
    assert words(running(engine, answer)) == "hello"


def test_after_each_death_in_a_row_the_next_start_waits_longer_and_then_the_client_is_asked_to(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[BEGAN, {"kill": "SIGKILL"}, CANCELLED]]})

    async def work(process: EngineProcess) -> list[float]:
        starts: list[float] = []
        for _ in range(5):
            before = anyio.current_time()
            await process.load("/models/one")
            assert isinstance(await failure(process), Overloaded)
            starts.append(anyio.current_time() - before)
        process._n_failures = 12  # as after ten minutes of it
        error = await failure(process)
        assert isinstance(error, Overloaded)
        assert error.retry_after_s is not None
        assert 5 < error.retry_after_s <= 30
        return starts

    waited = running(engine, work)
    assert waited[4] >= 0.8  # 0.1 s, 0.2, 0.4, 0.8
    assert len(engine.pids) == 5


def test_an_answer_in_between_makes_the_next_start_quick_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [ANSWER, [{"kill": "SIGKILL"}, CANCELLED]]})

    async def work(process: EngineProcess) -> int:
        for _ in range(3):
            await answer(process)
            await failure(process)
        return process._n_failures

    assert running(engine, work) == 1


def test_an_engine_that_cannot_start_says_why_and_is_not_tried_again_by_the_client(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"start": [{"say": "no module named mlx"}, {"exit": 1}]})
    error = running(engine, failure)
    assert isinstance(error, BackendFailed)
    assert error.should_retry is False
    assert "no module named mlx" in error.message
    assert str(engine.command.errors_file) in error.message


def test_one_that_is_killed_while_it_starts_is_tried_again(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"start": [{"kill": "SIGKILL"}]}, {})

    async def work(process: EngineProcess) -> str:
        assert isinstance(await failure(process), Overloaded)
        return words(await answer(process))

    assert running(engine, work) == "hello"


@pytest.mark.parametrize("start", [[READY | {"version": "0.0.0"}], [READY | {"version": ""}]])
def test_another_version_is_ended_and_named(tmp_path: Path, start: list[Life]) -> None:
    engine = ScriptedEngine(tmp_path, {"start": start})
    error = running(engine, failure)
    assert isinstance(error, BackendFailed)
    assert error.should_retry is False
    assert "anyclaude stop" in error.message


def test_a_program_that_does_not_exist_is_a_clear_error(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)
    engine.command = type(engine.command)(
        cache=tmp_path / "cache", log_file=tmp_path / "engine.log", program=("/nowhere/python",)
    )
    error = running(engine, failure)
    assert isinstance(error, BackendFailed)
    assert "/nowhere/python" in error.message


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    error = running(engine, failure)
    assert "open to others" in error.message
    assert not engine.pids


def test_leaving_the_answer_cancels_it_and_a_whole_one_is_not_cancelled(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [HOLD, ANSWER]})

    async def work(process: EngineProcess) -> None:
        async with aclosing(process.request(GENERATE)) as reports:
            await anext(reports)
        await anyio.to_thread.run_sync(engine.wait_for, "cancel")
        await answer(process)
        assert process.statistics().n_requests == 0
        await process.ask("statistics")

    running(engine, work)
    cancelled = [frame["id"] for frame in engine.seen("cancel")]
    assert cancelled == [engine.seen("generate")[0]["id"]]


def test_a_task_that_is_cancelled_cancels_its_request(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [HOLD]})

    async def work(process: EngineProcess) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(answer, process)
            await anyio.to_thread.run_sync(engine.wait_for, "generate")
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(engine.wait_for, "cancel")

    running(engine, work)


def test_a_request_that_gives_up_while_the_engine_starts_leaves_the_start_to_the_next(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"start": [{"wait": "start"}, READY]})

    async def work(process: EngineProcess) -> str:
        async with anyio.create_task_group() as group:
            group.start_soon(answer, process)
            await anyio.to_thread.run_sync(lambda: _wait_for_life(engine))
            group.cancel_scope.cancel()
        await anyio.to_thread.run_sync(engine.open, "start")
        return words(await answer(process))

    assert running(engine, work) == "hello"
    assert len(engine.pids) == 1


def _wait_for_life(engine: ScriptedEngine) -> None:
    wait_until(lambda: engine.pids, "the engine has started")


def test_a_reader_that_stands_still_does_not_hold_up_the_others_and_loses_nothing(tmp_path: Path) -> None:
    pieces = [text(f"{n},") for n in range(20_000)]
    engine = ScriptedEngine(tmp_path, {"generate": [[BEGAN, *pieces, FINISHED], ANSWER]})

    async def work(process: EngineProcess) -> None:
        async with aclosing(process.request(GENERATE)) as slow:
            assert isinstance(await anext(slow), Began)
            assert words(await answer(process)) == "hello"
            rest = [report async for report in slow]
        assert words(rest) == "".join(f"{n}," for n in range(20_000))
        assert isinstance(rest[-1], Finished)

    running(engine, work)


def test_silence_of_everything_ends_the_child_and_of_one_request_only_that(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[BEGAN, {"hang": True}]]}, {})

    async def work(process: EngineProcess) -> None:
        with pytest.raises(BackendTimeout) as caught:
            await answer(process, silence_s=0.2)
        assert caught.value.should_retry is False
        assert "backend_silence_s" in caught.value.message
        assert not process.is_running
        assert words(await answer(process)) == "hello"

    running(engine, work)


@pytest.mark.parametrize(
    ("step", "kind", "status", "retry"),
    [
        (failed("invalid", "bad field"), InvalidRequest, 400, None),
        (failed("too_long", "", n_prompt=40_000, window=32_000), PromptTooLong, 400, None),
        (failed("missing", "no such folder"), Missing, 404, None),
        (failed("refused", "config.json wants to run code"), InvalidRequest, 400, False),
        (failed("overloaded", "memory"), Overloaded, 529, None),
        (failed("failed", "a defect"), BackendFailed, 502, None),
    ],
)
def test_a_failure_is_the_error_that_the_client_acts_on(
    tmp_path: Path, step: Life, kind: type[ApiError], status: int, retry: bool | None
) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[step]]})
    error = running(engine, failure)
    assert type(error) is kind
    assert (error.status, error.should_retry) == (status, retry)
    assert step["message"] in error.message


def test_a_prompt_that_is_too_long_is_told_in_the_words_that_make_the_client_act(tmp_path: Path) -> None:
    by_prompt = failed("too_long", "", n_prompt=40_000, window=32_000)
    by_output = failed("too_long", "", n_prompt=30_000, window=32_000, max_tokens=4_000)
    engine = ScriptedEngine(tmp_path, {"generate": [[by_prompt], [by_output]]})

    async def work(process: EngineProcess) -> list[str]:
        return [(await failure(process)).message for _ in range(2)]

    first, second = running(engine, work)
    assert first == "prompt is too long: 40000 tokens > 32000 maximum"
    assert second.startswith("input length and `max_tokens` exceed context limit: 30000 + 4000 > 32000")


def test_a_model_is_loaded_once_in_each_life(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {})

    async def work(process: EngineProcess) -> None:
        for _ in range(2):
            assert (await process.load("/models/one")).window == 32_000
            await process.load("/models/two")
        assert set(process.statistics().models) == {"/models/one", "/models/two"}
        engine.kill()
        await anyio.to_thread.run_sync(lambda: _wait_for_end(process))
        assert process.statistics().models == ()
        await process.load("/models/one")
        await process.ask("unload", ("/models/one",))
        await process.load("/models/one")

    running(engine, work)
    assert [frame["model"] for frame in engine.seen("load")] == [
        "/models/one",
        "/models/two",
        "/models/one",
        "/models/one",
    ]


def _wait_for_end(process: EngineProcess) -> None:
    wait_until(lambda: not process.is_running, "its end is noticed")


def test_what_the_engine_says_while_it_loads_is_shown(tmp_path: Path) -> None:
    loading = {"type": "loading", "what": "weights, 2 of 4 files"}
    engine = ScriptedEngine(tmp_path, {"load": [[loading, {"wait": "loaded"}, LOADED]]})

    async def work(process: EngineProcess) -> str | None:
        shown = None
        async with anyio.create_task_group() as group:
            group.start_soon(process.load, "/models/one")
            await anyio.to_thread.run_sync(lambda: _wait_for_words(process))
            shown = process.statistics().loading
            await anyio.to_thread.run_sync(engine.open, "loaded")
        assert process.statistics().loading is None
        return shown

    assert running(engine, work) == "weights, 2 of 4 files"


def _wait_for_words(process: EngineProcess) -> None:
    wait_until(lambda: process.statistics().loading, "the engine says what it loads")


def test_one_question_without_a_server_starts_an_engine_and_leaves_none(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"ask": [[{"type": "told", "value": {"blocks": 7}}]]})
    told = anyio.run(lambda: ask_once(engine.command, "cache.ls", ("one",)))
    assert told == {"blocks": 7}
    assert [(frame["what"], frame["names"]) for frame in engine.seen("ask")] == [("cache.ls", ["one"])]
    assert all(engine.has_gone(pid) for pid in engine.pids)


def test_a_count_is_the_engines(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)
    assert running(engine, lambda process: process.count(CountTokens(0, "/models/one", Chat(())))) == 123


@pytest.mark.parametrize("life", [{"stays": True}, {"stays": True, "ignores": "SIGTERM"}])
def test_one_that_does_not_go_is_asked_and_then_killed(tmp_path: Path, life: Life) -> None:
    engine = ScriptedEngine(tmp_path, life | {"generate": [HOLD]})

    async def work(process: EngineProcess) -> float:
        async with aclosing(process.request(GENERATE)) as reports:
            await anext(reports)
            started = anyio.current_time()
            await process.close()
            took_s = anyio.current_time() - started
            with pytest.raises(Overloaded, match="being stopped"):
                await anext(reports)
        with pytest.raises(Overloaded, match="being stopped"):
            await answer(process)
        return took_s

    assert END_S <= running(engine, work) < 5.5


def test_one_that_goes_by_itself_is_not_waited_for(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)

    async def work(process: EngineProcess) -> float:
        await answer(process)
        started = anyio.current_time()
        await process.close()
        return anyio.current_time() - started

    assert running(engine, work) < END_S
    assert len(engine.pids) == 1


_SERVER = """
import sys, anyio
from pathlib import Path
from anyclaude.backends.engine_child import EngineCommand
from anyclaude.backends.engine_process import EngineProcess

async def serve():
    program = tuple(sys.argv[2:])
    folder = Path(sys.argv[1])
    command = EngineCommand(
        cache=folder / "cache", log_file=folder / "engine.log", options={"folder": str(folder)}, program=program
    )
    await EngineProcess(command).ask("models")
    print("served", flush=True)
    await anyio.sleep_forever()

anyio.run(serve)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_does_not_outlive_a_server_that_is_killed(tmp_path: Path, number: int) -> None:
    engine = ScriptedEngine(tmp_path)
    command = [sys.executable, "-c", _SERVER, str(tmp_path), *engine.command.program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"served\n"
        assert not engine.has_gone(engine.pids[0])
        server.send_signal(number)
    wait_until(lambda: engine.has_gone(engine.pids[0]), "the child has gone")


def test_it_works_on_the_servers_own_event_loop(tmp_path: Path) -> None:
    """uvloop, which has transports of its own."""
    engine = ScriptedEngine(tmp_path, {"generate": [ANSWER, HOLD]}, {})

    async def run() -> None:
        process = EngineProcess(engine.command)
        assert words(await answer(process)) == "hello"
        async with aclosing(process.request(GENERATE)) as reports:
            await anext(reports)
            engine.kill(signal.SIGKILL)
            with pytest.raises(Overloaded):
                await anext(reports)
        assert words(await answer(process)) == "hello"
        await process.close()

    anyio.run(run, backend_options={"use_uvloop": True})
    assert all(engine.has_gone(pid) for pid in engine.pids)


def test_nothing_of_ours_is_open_in_it_but_its_end_of_the_socket(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)

    async def work(process: EngineProcess) -> list[str]:
        await answer(process)
        return await anyio.to_thread.run_sync(_opened, engine.pids[0])

    opened = running(engine, work)
    sockets = [name for name in opened if name.startswith("socket:")]
    assert len(sockets) <= 1
    assert all(name.startswith(("socket:", "/dev/null", str(tmp_path))) for name in opened)


def _opened(pid: int) -> list[str]:
    """Where the system tells."""
    folder = Path(f"/proc/{pid}/fd")
    return [str(entry.readlink()) for entry in folder.iterdir()] if folder.exists() else []


@given(
    st.lists(
        st.one_of(
            st.builds(Piece, st.just(1), st.sampled_from(["text", "thinking"]), st.text(max_size=3)),
            st.builds(CallPiece, st.just(1), st.integers(0, 1), st.text(max_size=3)),
            st.builds(Prefilled, st.just(1), st.integers(0, 9), st.just(9)),
        )
    )
)
def test_what_waits_is_put_together_and_says_the_same(reports: list[Report]) -> None:
    async def run() -> list[Report]:
        inbox = Inbox()
        for report in [*reports, Told(1, {})]:
            assert inbox.put(report)
        found: list[Report] = []
        while not found or not isinstance(found[-1], Told):
            found.append(await inbox.next())
        return found

    assert said(anyio.run(run)) == said([*reports, Told(1, {})])


def said(reports: list[Report]) -> list[tuple[object, str]]:
    """Runs of one kind as one, and of progress only the last."""
    runs: list[tuple[object, str]] = []
    for report in reports:
        match report:
            case Piece(kind=kind, text=words):
                key, piece = (kind, words)
            case CallPiece(index=index, arguments=words):
                key, piece = (index, words)
            case _:
                key, piece = (type(report).__name__, "")
        if runs and runs[-1][0] == key:
            runs[-1] = (key, runs[-1][1] + piece)
        else:
            runs.append((key, piece))
    return runs


def test_what_nobody_reads_has_a_bound(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path, {"generate": [[BEGAN, *[text("x" * (1 << 20))] * 10, CANCELLED], ANSWER]})

    async def work(process: EngineProcess) -> None:
        async with aclosing(process.request(GENERATE)) as slow:
            await anext(slow)
            await anyio.to_thread.run_sync(engine.wait_for, "cancel")
            found: list[Report] = []
            with pytest.raises(BackendFailed, match="was not read"):
                await read(slow, found)
        assert len(words(found)) <= MOST + (1 << 20)
        assert words(await answer(process)) == "hello"

    running(engine, work)
    assert len(engine.seen("cancel")) == 1


def test_how_a_process_ended_is_said_in_words() -> None:
    assert how_it_ended(-9) == "was ended by signal 9 (SIGKILL)"
    assert how_it_ended(-250) == "was ended by signal 250"
    assert how_it_ended(2) == "ended with exit status 2"


def test_a_request_waits_for_nothing_once_its_end_is_known(tmp_path: Path) -> None:
    engine = ScriptedEngine(tmp_path)

    async def work(process: EngineProcess) -> None:
        async with aclosing(process.request(Ask(0, "models"))) as reports:
            assert isinstance(await anext(reports), Told)
            with pytest.raises(StopAsyncIteration):
                await anext(reports)
        assert (await process.load("/models/one")) == Capabilities(window=32_000, classes=("append_only",))

    running(engine, work)
