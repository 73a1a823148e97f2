"""The engine's blocks from outside: what a person may do with them, what is read ahead of the user, what is private."""

import sqlite3
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from anyclaude.wire.frames import Began, Chat, Load, Piece, Prepare, Told
from tests.support.engine import Answered, EngineClient, running_engine, said
from tests.support.long_model import long_model
from tests.support.marker_model import marker_model
from tests.support.wait import wait_until

AHEAD = "the project"
SECRET = "plum gondola harvest tangent velvet marble cinnamon"
LONG = " ".join(f"word{n}" for n in range(20_000))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return marker_model(tmp_path_factory.mktemp("models") / "script", [("zqone", "the answer")])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Generator[EngineClient]:
    with running_engine(tmp_path_factory.mktemp("engine") / "cache") as engine:
        yield engine


def a_conversation(words: str, n_words: int = 600) -> Chat:
    """Two blocks and a part of a third."""
    return said(f"zqone {words} " + " ".join(f"{words}{n}" for n in range(n_words // 4)))


def n_read(answer: Answered) -> int:
    assert answer.text == "the answer"
    return answer.finished.n_prefilled


def own_line(engine: EngineClient, answer: Answered) -> str:
    """The digest of what ends where this prompt and its answer do."""
    end = answer.finished.n_prompt + answer.finished.n_out
    (digest,) = {line["digest"] for line in engine.tell("cache.ls")["entries"] if line["n_tokens"] == end}
    return digest


def test_what_is_listed_can_be_pinned_and_removed_by_its_digest(shared: EngineClient, model: Path) -> None:
    answer = shared.generate(model, a_conversation("removed"))
    digest = own_line(shared, answer)
    assert n_read(shared.generate(model, a_conversation("removed"))) == 1
    assert shared.tell("cache.pin", digest) == {"pinned": [digest]}
    assert [line["is_pinned"] for line in shared.tell("cache.ls")["entries"] if line["digest"] == digest] == [True]
    assert shared.tell("cache.unpin", digest) == {"unpinned": [digest]}
    assert shared.tell("cache.unpin", digest) == {"unpinned": []}
    assert [line["is_pinned"] for line in shared.tell("cache.ls")["entries"] if line["digest"] == digest] == [False]
    assert shared.tell("cache.rm", digest)["removed"] >= 1
    assert shared.tell("cache.rm", digest) == {"removed": 0}
    assert shared.tell("cache.pin", "no such digest") == {"pinned": []}
    assert n_read(shared.generate(model, a_conversation("removed"))) > 256, "its first block is gone, too"


def test_what_is_verified_is_sound_until_a_file_is_damaged(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        first = engine.generate(model, a_conversation("damaged"))
    files = sorted((tmp_path / "cache" / "blocks").glob("*.kv"))
    assert len(files) >= 2
    with running_engine(tmp_path / "cache") as engine:
        assert {line["model"] for line in engine.tell("cache.ls")["entries"]} == {model.name}
        checked = engine.tell("cache.verify")
        assert checked["parity"] == []
        assert (checked["files"], checked["sound"], checked["damaged"], checked["faults"]) == (
            len(files),
            len(files),
            0,
            0,
        )
        for file in files:
            damage(file)
        assert engine.tell("cache.verify")["damaged"] == len(files)
        again = engine.generate(model, a_conversation("damaged"))
        (parity,) = engine.tell("cache.verify")["parity"]
    assert (parity["model"], parity["holds"], parity["equal_tokens"]) == (model.name, True, True)
    assert parity["tokens"] == 511
    assert again.text == first.text == "the answer"
    assert again.finished.n_prefilled == first.finished.n_prompt


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 0xFF
    file.write_bytes(data)


def test_files_and_state_are_verified_beside_an_answer(tmp_path: Path) -> None:
    model = long_model(tmp_path / "long", n_words=1_000)
    with running_engine(tmp_path / "cache") as engine:
        request = engine.start(model, said("tell me, " + LONG[:4_000]), max_tokens=5_000)
        next(report for report in engine.reports(request) if isinstance(report, Piece))
        checked = engine.tell("cache.verify")
        next(report for report in engine.reports(request) if isinstance(report, Piece))
        engine.cancel(request)
    assert checked["damaged"] == 0
    assert [parity["holds"] for parity in checked["parity"]] == [True]


def test_what_is_cleared_is_gone_from_memory_and_from_disk(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        first = engine.generate(model, a_conversation("cleared"), ahead=AHEAD)
        assert engine.tell("cache.clear")["removed"] >= 3
        assert engine.tell("cache.ls") == {"entries": []}
        assert engine.prepare(model, AHEAD)["n_prompt"] == 0
        again = engine.generate(model, a_conversation("cleared"))
    assert n_read(first) == n_read(again) == first.finished.n_prompt


def test_what_is_cleared_is_gone_although_the_engine_ends_at_once(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        engine.generate(model, a_conversation("cleared"), ahead=AHEAD)
        engine.tell("cache.clear")
    with closing(sqlite3.connect(tmp_path / "cache" / "turns.sqlite3")) as file:
        left = [file.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("node", "name", "ahead")]
    assert left == [0, 0, 0]


def test_a_model_that_is_not_in_memory_is_said_to_be_loading(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        for told in (["Loading", "Loaded"], ["Loaded"]):
            engine.send(Load(engine.new_id(), str(model)))
            assert [type(engine.next()).__name__ for _ in told] == told


def test_an_engine_that_may_not_delete_says_so_and_deletes_nothing(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as writer:
        writer.generate(model, a_conversation("kept"))
        with running_engine(tmp_path / "cache") as reader:
            assert "another process writes there" in reader.tell("cache.clear")["problem"]
            assert "another process writes there" in reader.tell("cache.rm", "0")["problem"]
    with running_engine(tmp_path / "cache", kv_disk_mb=0) as without:
        assert "kv_disk_mb = 0" in without.tell("cache.clear")["problem"]
    assert list((tmp_path / "cache" / "blocks").glob("*.kv"))


def test_the_self_test_is_right_about_this_machine(shared: EngineClient, model: Path) -> None:
    for names in ((), (str(model),)):
        told = shared.tell("selftest", *names)
        assert told["parity"]["equal_tokens"], told
        assert told["parity"]["largest_difference"] < 1e-4
        assert told["parity"]["tokens"] > 1000
    assert "problem" in shared.tell("selftest", "/no/such/folder")


def test_what_a_project_begins_with_is_loaded_before_it_is_asked(tmp_path: Path, model: Path) -> None:
    with running_engine(tmp_path / "cache") as engine:
        first = engine.generate(model, a_conversation("ahead"), ahead=AHEAD)
    with running_engine(tmp_path / "cache") as engine:
        assert engine.prepare(model, "another project") == {"n_read": 0, "n_cached": 0, "n_prompt": 0}
        assert engine.statistics("cache")["n_blocks_in_memory"] == 0
        told = engine.prepare(model, AHEAD)
        loaded = engine.statistics("cache")
        again = engine.generate(model, a_conversation("ahead"), ahead=AHEAD)
        after = engine.statistics("cache")
    assert told["n_cached"] == told["n_prompt"] - 1 == first.finished.n_prompt - 1
    assert loaded["n_loaded"] == loaded["n_blocks_in_memory"] >= 3
    assert n_read(again) == 1
    assert after["n_loaded"] == loaded["n_loaded"]


def test_a_request_overtakes_what_is_read_ahead_of_it_and_goes_on_from_there(tmp_path: Path) -> None:
    model = long_model(tmp_path / "long")
    with running_engine(tmp_path / "cache", kv_write_mb_a_day=0) as engine:
        request = engine.start(model, said(LONG), ahead=AHEAD)
        next(engine.reports(request))
        engine.cancel(request)
        engine.tell("models")
    with running_engine(tmp_path / "cache", kv_write_mb_a_day=0) as engine:
        engine.load(model)
        prepare = Prepare(engine.new_id(), str(model), AHEAD)
        engine.send(prepare)
        wait_until(lambda: engine.statistics("scheduler")["tokens_prefilled"] > 0, "something was read ahead")
        request = engine.start(model, said(LONG), max_tokens=2)
        answers = engine.answers({prepare.id, request})
        total = engine.statistics("scheduler")["tokens_prefilled"]
    told, began = answers[prepare.id].last, answers[request].began
    assert isinstance(told, Told)
    assert isinstance(began, Began)
    assert 0 < told.value["n_read"] < told.value["n_prompt"]
    assert began.n_cached == told.value["n_read"]
    assert total == began.n_prompt


def test_a_private_turn_leaves_nothing_on_disk(tmp_path: Path, model: Path) -> None:
    chat = a_conversation(SECRET)
    ids = np.array(Tokenizer.from_file(str(model / "tokenizer.json")).encode(f" {SECRET}").ids, "<u4").tobytes()

    def found_in(folder: Path) -> list[str]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        texts = (SECRET.encode(), ids)
        return [path.name for path in files if any(text in path.read_bytes() for text in texts)]

    for is_private in (False, True):
        folder = tmp_path / f"private {is_private}"
        with running_engine(folder) as engine:
            first = engine.generate(model, chat, is_private=is_private, ahead=AHEAD)
            words = said(chat.turns[0].content, first.text, "zqone, and on")
            assert n_read(engine.generate(model, words, is_private=is_private, ahead=AHEAD)) < 20
        with running_engine(folder) as engine:
            assert bool(engine.prepare(model, AHEAD)["n_prompt"]) is not is_private
            read = n_read(engine.generate(model, chat, is_private=True))
        assert bool(found_in(folder)) is not is_private
        assert read == (first.finished.n_prompt if is_private else 1)
