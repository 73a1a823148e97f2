"""What the real client notices when its engine dies or all is started anew: nothing, and little is read twice."""

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.client.conftest import answer_dialogs, has_prompt, leave, say
from tests.launch.test_processes import server_process
from tests.support.engine_home import (
    N_BLOCK,
    EngineHome,
    assert_reads_only_what_is_new,
    make_engine_home,
    n_new,
    n_read,
)
from tests.support.long_model import long_model
from tests.support.terminal import Terminal
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


def test_when_the_gateway_is_killed_its_engine_goes_with_it_and_another_takes_over(engine: EngineHome) -> None:
    conversation = engine.conversation("--allowedTools", "Bash")
    conversation.say("before the gateway dies: zqloop")
    engine.wait_until_written()
    before = engine.engine()
    server_process(engine.home).kill()
    wait_until(lambda: not before.is_running(), "the engine without a server is gone")
    assert conversation.say("zqagain") == "Still here."
    assert engine.engine().pid != before.pid
    assert_reads_only_what_is_new(conversation.turns(4), more=N_BLOCK)


def test_after_a_turn_on_another_model_the_first_one_reads_only_what_is_new(engine: EngineHome, tmp_path: Path) -> None:
    other = EngineHome(engine.home, long_model(tmp_path / "other", n_words=5)).conversation("--tools", "Bash")
    conversation = engine.conversation()
    conversation.say("before the switch")
    assert len(other.say("on the other model").split()) == 5
    assert conversation.say("zqagain") == "Still here."
    other.say("once more")
    for turns in (conversation.turns(2), other.turns(2)):
        assert_reads_only_what_is_new(turns)


def test_after_a_restart_the_blocks_are_in_memory_before_the_first_word_is_typed(engine: EngineHome) -> None:
    """The client on a terminal, where its own prompt was read before."""
    answer_dialogs(engine.home)
    first, again = engine.conversation(), engine.conversation()
    for conversation in (first, again):
        assert engine.home.run("stop", "--force").returncode == 0
        command = engine.home.command(*conversation.arguments)
        with Terminal(command, cwd=engine.home.project, environment=engine.home.environment) as at:
            at.wait_until(has_prompt, what="the prompt")
            if conversation is again:
                wait_until(lambda: prepared(engine) > 50, "blocks come into memory")
            n_loaded = prepared(engine)
            say(at, f"typed after a restart {n_loaded}")
            at.wait_for("● no marker")
            (turn,) = conversation.turns(1)
            assert leave(at) == 0
    assert n_loaded > 50
    assert engine.statistics()["cache"]["n_loaded"] == n_loaded
    assert n_read(turn) < 50


def prepared(engine: EngineHome) -> int:
    """Blocks that are in memory because they were read from disk."""
    statistics = engine.server.get("/anyclaude/engine")["engine"]
    return statistics["cache"]["n_loaded"] if statistics else 0


@pytest.fixture
def long_answers(tmp_path: Path) -> Generator[EngineHome]:
    with make_engine_home(tmp_path / "home", long_model(tmp_path / "long", n_words=1_800)) as made:
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
