"""What the real client notices when the engine dies, or everything is started anew: nothing, and little is read twice."""

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.engine_home import (
    N_BLOCK,
    EngineHome,
    assert_reads_only_what_is_new,
    make_engine_home,
    n_new,
    n_read,
)
from tests.support.long_model import long_model
from tests.support.wait import wait_until


def test_after_a_restart_of_everything_a_turn_reads_as_little_as_if_nothing_had_happened(engine: EngineHome) -> None:
    conversation = engine.conversation("--allowedTools", "Bash")
    conversation.say("before a restart: zqloop")
    before = engine.engine()
    assert engine.home.run("stop", "--force").returncode == 0
    assert not before.is_running()
    assert conversation.say("zqagain") == "Still here."
    assert engine.engine().pid != before.pid
    assert_reads_only_what_is_new(conversation.turns(4), more=N_BLOCK)


def test_an_engine_that_was_killed_between_two_turns_costs_less_than_a_block(engine: EngineHome) -> None:
    conversation = engine.conversation("--allowedTools", "Bash")
    conversation.say("before a death: zqloop")
    engine.wait_until_written()
    engine.kill_engine()
    assert conversation.say("zqagain") == "Still here."
    assert_reads_only_what_is_new(conversation.turns(4), more=N_BLOCK)
    assert not conversation.failures()


@pytest.fixture
def long_answers(tmp_path: Path) -> Generator[EngineHome]:
    with make_engine_home(tmp_path / "home", long_model(tmp_path / "long")) as made:
        yield made


def test_an_engine_that_is_killed_in_the_midst_of_an_answer_is_asked_again_by_the_client(
    long_answers: EngineHome,
) -> None:
    conversation = long_answers.conversation("--tools", "Bash")
    whole = conversation.say("tell me something long")
    long_answers.wait_until_written()
    said: list[str] = []
    turn = threading.Thread(target=lambda: said.append(conversation.say("and again")))
    turn.start()
    wait_until(lambda: is_answering(long_answers), "the answer has begun")
    long_answers.kill_engine()
    turn.join()
    assert said == [whole]
    first, second = conversation.turns(2)
    assert n_read(second) <= n_new(first, second) + N_BLOCK
    assert conversation.failures() == ["overloaded_error"]


def is_answering(engine: EngineHome) -> bool:
    return any(turn["is_answering"] for turn in engine.server.get("/anyclaude/statistics")["server"]["running"])
