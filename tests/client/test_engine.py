"""The real client on the embedded engine: whatever it does, a turn reads what is new in it and nothing twice."""

import json
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from tests.client.engine_script import SERVER
from tests.support import mcp_server
from tests.support.engine_home import EngineHome, assert_reads_only_what_is_new, make_engine_home, n_read

GENERATION = 8  # tokens that end a person's turn and begin an answer, at most


def test_a_tool_loop_reads_each_result_and_nothing_else(engine: EngineHome) -> None:
    conversation = engine.conversation("--allowedTools", "Bash")
    assert conversation.say("begin zqloop") == "All is done."
    assert conversation.say("thanks") == "All is done."
    turns = conversation.turns(4)
    assert [turn.tool_calls for turn in turns] == [1, 1, 0, 0]
    assert_reads_only_what_is_new(turns)
    assert all(n_read(turn) < 50 for turn in turns[1:])


def test_a_tool_that_a_search_loads_is_read_where_it_was_found(engine: EngineHome) -> None:
    grown = engine.home.root / "grown"
    grown.touch()
    arguments = [mcp_server.__file__, str(grown), " zqloaded", " zqcalled"]
    config = json.dumps({"mcpServers": {SERVER: {"command": sys.executable, "args": arguments}}})
    conversation = engine.conversation("--mcp-config", config, "--allowedTools", f"mcp__{SERVER}")
    assert conversation.say("find it: zqsearch") == "It was called."
    turns = conversation.turns(3)
    assert [turn.tool_calls for turn in turns] == [1, 1, 0]
    assert_reads_only_what_is_new(turns)
    assert n_read(turns[1]) < 200


def test_a_second_session_of_a_project_reads_the_persons_words(engine: EngineHome) -> None:
    engine.conversation().say("some words that begin a session")
    words = "Quite other words: what does the sea sound like when nobody is there to hear it?"
    second = engine.conversation()
    second.say(words)
    (turn,) = second.turns(1)
    tokenizer = Tokenizer.from_file(str(engine.model / "tokenizer.json"))
    assert n_read(turn) <= len(tokenizer.encode(words).ids) + GENERATION


def test_of_a_private_launch_the_engine_writes_nothing(engine: EngineHome) -> None:
    tokenizer = Tokenizer.from_file(str(engine.model / "tokenizer.json"))
    written: list[bool] = []
    for options, phrase in (((), "a marmot in the attic"), (("--private",), "a badger under the stairs")):
        conversation = engine.conversation(*options)
        conversation.say(" and ".join([phrase] * 200))  # blocks of it
        assert conversation.say("zqagain") == "Still here."
        ids = np.array(tokenizer.encode(f" {phrase}").ids, "<u4").tobytes()
        assert engine.home.run("stop", "--force").returncode == 0
        files = [path for path in (engine.home.root / "cache").rglob("*") if path.is_file()]
        written.append(any(ids in data or phrase.encode() in data for data in map(Path.read_bytes, files)))
    assert written == [True, False]


def test_a_sub_agent_beside_a_full_memory_costs_the_main_conversation_nothing(
    tmp_path: Path, script_folder: Path
) -> None:
    """There is room for the main conversation and for a part of the agent's, and no disk to come back from."""
    with make_engine_home(tmp_path / "home", script_folder) as engine:
        limits = {"ANYCLAUDE_KV_MEMORY_MB": "8", "ANYCLAUDE_KV_DISK_MB": "0"}
        conversation = engine.conversation("--allowedTools", "Bash", "--tools", "Bash,Agent", **limits)
        assert conversation.say("ask the agent: zqagent").endswith("The agent found it.")
        assert conversation.say("zqagain") == "Still here."
        main = conversation.turns(4)
        assert len(conversation.turns(2, agents=True)) == 2
        cache = engine.statistics()["cache"]
    assert_reads_only_what_is_new(main)
    assert all(n_read(turn) < 1000 for turn in main[1:])
    assert cache["n_evicted"] + cache["n_refused"] > 0
