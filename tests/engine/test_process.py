"""The engine's process from outside: a real child, frames over its socket. Tokens are asserted, never seconds."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from anyclaude.wire.frames import Chat, Failed, Finished, Generate, Load, Piece, Prefilled
from tests.support.engine import EngineClient, running_engine, said
from tests.support.long_model import long_model
from tests.support.marker_model import call, marker_model
from tests.support.model_folder import make_model

LONG = " ".join(f"word{n}" for n in range(20_000))  # more than any test waits for
STEPS = [("zqone", "first answer"), ("zqtwo", "second answer"), ("zqthree", "I look.\n" + call("Bash", command="ls"))]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marker_model(tmp_path_factory.mktemp("models") / "script", STEPS)


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return long_model(tmp_path_factory.mktemp("models") / "long", n_words=1_000)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineClient]:
    """For tests that leave nothing running."""
    with running_engine(tmp_path_factory.mktemp("engine") / "cache") as engine:
        yield engine


def test_it_is_ready_before_it_imports_mlx_lm(tmp_path: Path) -> None:
    """An import that never ends stands in for one that takes seconds."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "mlx_lm").mkdir()
    (tmp_path / "mlx_lm" / "__init__.py").write_text(f"open({str(gate)!r}).read()\nraise SystemExit(3)\n")
    engine = EngineClient(tmp_path / "cache", environ={"PYTHONPATH": str(tmp_path)})
    assert engine.ready.version
    assert engine.process.poll() is None
    gate.write_text("go on")  # returns when the import is there
    assert engine.process.wait(60) == 3
    engine.drop()


def test_it_ends_when_its_server_goes(tmp_path: Path) -> None:
    assert EngineClient(tmp_path / "cache").close() == 0


def test_it_ends_in_the_midst_of_a_long_prompt_and_keeps_what_it_has_read(tmp_path: Path, endless: Path) -> None:
    engine = EngineClient(tmp_path / "cache")
    first = engine.start(endless, said(LONG))
    read = until_prefilled(engine, first)
    assert engine.close() == 0
    with running_engine(tmp_path / "cache") as engine:
        second = engine.start(endless, said(LONG))
        progress = until_prefilled(engine, second)
        engine.cancel(second)
    assert read.n_read < read.n_total - 10_000
    assert progress.n_read > read.n_read


def test_sigterm_writes_down_the_last_token(tmp_path: Path, script: Path) -> None:
    engine = EngineClient(tmp_path / "cache")
    first = engine.generate(script, said("some words, and zqone"))
    assert first.text == "first answer"
    assert engine.terminate() == 0
    engine.drop()
    with running_engine(tmp_path / "cache") as engine:
        again = engine.generate(script, said("some words, and zqone"))
    assert again.text == "first answer"
    assert (first.finished.n_prefilled, again.finished.n_prefilled) == (first.finished.n_prompt, 1)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n\r\n", b"\0\0\0\2{}", b"\0\0\0\1\xc1", b"\xff\xff\xff\xff"])
def test_bytes_that_are_no_frame_end_it_in_order(tmp_path: Path, data: bytes) -> None:
    engine = EngineClient(tmp_path / "cache")
    engine.send_bytes(data)
    assert engine.process.wait(60) == 0
    engine.drop()
    assert "frames ended badly" in (tmp_path / "cache" / "engine.log").read_text()


def test_a_cancelled_prompt_is_not_read_on(tmp_path: Path, endless: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        request = engine.start(endless, said(LONG))
        read = until_prefilled(engine, request)
        engine.cancel(request)
        before = engine.statistics("scheduler")
        other = engine.generate(endless, said("hello"), max_tokens=3)
        after = engine.statistics("scheduler")
    assert before["tokens_prefilled"] < read.n_total / 2
    assert (before["waiting"], before["writing"], before["live_bytes"]) == (0, 0, 0)
    assert after["tokens_prefilled"] == before["tokens_prefilled"] + other.finished.n_prefilled


def test_a_cancelled_answer_is_not_written_on(shared: EngineClient, endless: Path) -> None:
    before = shared.statistics("scheduler")["tokens_generated"]
    request = shared.start(endless, said("tell me"), max_tokens=5_000)
    next(report for report in shared.reports(request) if isinstance(report, Piece))
    shared.cancel(request)
    stopped = shared.statistics("scheduler")
    other = shared.generate(endless, said("hello"), max_tokens=3)
    after = shared.statistics("scheduler")
    assert stopped["tokens_generated"] - before < 1_000
    assert (stopped["waiting"], stopped["writing"]) == (0, 0)
    assert after["tokens_generated"] == stopped["tokens_generated"] + other.finished.n_out


def test_a_request_that_waits_is_cancelled_before_it_begins(shared: EngineClient, endless: Path) -> None:
    first = shared.start(endless, said(LONG))
    second = shared.start(endless, said("hello, " + LONG))
    until_prefilled(shared, first)
    shared.cancel(second)
    shared.cancel(first)
    assert shared.statistics("scheduler")["waiting"] == 0
    assert shared.generate(endless, said("hello"), max_tokens=3).finished.n_out == 3


def test_requests_at_once_get_each_its_own_answer(shared: EngineClient, script: Path, endless: Path) -> None:
    shared.load(script)
    asked = {
        shared.start(script, said("zqone")): "first answer",
        shared.start(endless, said("hello")): None,
        shared.start(script, said("much longer: " + "and on " * 500 + "zqtwo")): "second answer",
        shared.start(script, said("zqthree")): "I look.\n" + call("Bash", command="ls"),
    }
    answers = shared.answers(set(asked))
    assert all(answers[number].text == text for number, text in asked.items() if text)
    assert all(answers[number].finished.n_prefilled > 0 for number in asked)


def test_a_model_that_was_unloaded_comes_back_and_finds_its_blocks(shared: EngineClient, script: Path) -> None:
    words = said("unloaded and loaded again, zqtwo")
    shared.generate(script, words)
    assert str(script) in {model["folder"] for model in shared.tell("models")["models"]}
    told = shared.tell("unload", str(script))
    assert (told["unloaded"], told["busy"]) == ([str(script)], [])
    assert str(script) not in {model["folder"] for model in shared.tell("models")["models"]}
    again = shared.generate(script, words)
    assert (again.text, again.finished.n_prefilled) == ("second answer", 1)


def test_a_model_at_work_is_not_unloaded(shared: EngineClient, endless: Path) -> None:
    request = shared.start(endless, said("tell me"), max_tokens=5_000)
    next(report for report in shared.reports(request) if isinstance(report, Piece))
    told = shared.tell("unload", str(endless))
    shared.cancel(request)
    assert (told["unloaded"], told["busy"]) == ([], [str(endless)])


def test_without_a_name_every_model_is_unloaded_that_nothing_runs_on(
    shared: EngineClient, script: Path, endless: Path
) -> None:
    shared.generate(script, said("zqone"), max_tokens=2)
    request = shared.start(endless, said("tell me"), max_tokens=5_000)
    next(report for report in shared.reports(request) if isinstance(report, Piece))
    assert shared.tell("unload") == {"unloaded": [str(script)], "busy": [str(endless)]}
    shared.cancel(request)
    assert shared.tell("unload") == {"unloaded": [str(endless)], "busy": []}
    assert shared.tell("unload", str(endless), "/no/such/folder") == {"unloaded": [], "busy": []}
    assert shared.tell("models") == {"models": []}


def test_the_self_test_runs_beside_an_answer_and_leaves_no_model_behind(shared: EngineClient, endless: Path) -> None:
    request = shared.start(endless, said("tell me"), max_tokens=5_000)
    next(report for report in shared.reports(request) if isinstance(report, Piece))
    before = shared.tell("models")
    told = shared.tell("selftest")
    after = shared.tell("models")
    next(report for report in shared.reports(request) if isinstance(report, Piece))
    shared.cancel(request)
    assert told["parity"]["equal_tokens"]
    assert after == before


@pytest.mark.parametrize("fault", ["no folder", "pickle", "code", "weights that compute nothing", "link"])
def test_a_hostile_or_broken_model_is_refused_and_leaves_nothing(
    shared: EngineClient, tmp_path: Path, fault: str
) -> None:
    folder = broken_model(tmp_path, fault)
    before = (everything_in(tmp_path), everything_in(shared.folder))
    for frame in (Load(shared.new_id(), str(folder)), Generate(shared.new_id(), str(folder), said("x"), 3)):
        report = shared.ask(frame)
        assert isinstance(report, Failed)
        assert report.kind == "refused"
        assert len(report.message) > 20
    assert (everything_in(tmp_path), everything_in(shared.folder)) == before
    assert str(folder) not in {model["folder"] for model in shared.tell("models")["models"]}


def broken_model(root: Path, fault: str) -> Path:
    folder = root / "model"
    match fault:
        case "pickle":
            return make_model(folder, weights="pytorch_model.bin")
        case "code":
            return make_model(folder, auto_map={"AutoModel": "evil.Model"})
        case "link":
            make_model(folder, weights=None)
            (root / "secret.safetensors").write_bytes(b"secret")
            (folder / "model.safetensors").symlink_to(root / "secret.safetensors")
            return folder
        case "weights that compute nothing":
            return make_model(folder)
        case _:
            return folder


def everything_in(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def until_prefilled(engine: EngineClient, request: int) -> Prefilled:
    return next(report for report in engine.reports(request) if isinstance(report, Prefilled))


@pytest.mark.parametrize("depth", [300, 600, 900])
def test_a_schema_that_is_nested_too_deeply_ends_its_own_request_only(
    shared: EngineClient, script: Path, depth: int
) -> None:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"a": schema}
    tool = {"type": "function", "function": {"name": "Deep", "description": "-", "parameters": schema}}
    chat = said("hello")
    for answered in (
        shared.generate(script, Chat(chat.turns, (tool,)), max_tokens=2),
        shared.generate(script, chat, max_tokens=2, json_schema=schema),
    ):
        assert isinstance(answered.last, Finished) or answered.failed.kind == "invalid"
    assert shared.generate(script, chat, max_tokens=2).finished.n_out
