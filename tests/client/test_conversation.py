"""More than one turn: tools run, conversations go on, sub-agents work beside, and the prompt only grows."""

import json
import threading
from pathlib import Path
from typing import Any

from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.backend import Exchange
from tests.support.home import Home
from tests.support.script import (
    assert_each_extends_the_one_before,
    in_order,
    results,
    tool_names,
    words_of_person,
)

LIMIT_S = 60.0


def test_a_tool_call_is_run_and_its_result_comes_back_under_the_same_id(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    file = home.project / "new file.txt"
    call = chat.call("Write", {"file_path": str(file), "content": "hällo\n\tworld 🎉\n"})
    backend = scripted(in_order(call, chat.text("written")))
    done = ask(backend, "write it", "--permission-mode", "acceptEdits")
    assert (done.returncode, done.stdout) == (0, "written\n")
    assert file.read_text("utf-8") == "hällo\n\tworld 🎉\n"
    _, last = (exchange.body for exchange in backend.turns)
    asked, answered = last["messages"][-2:]
    (made,) = asked["tool_calls"]
    assert (asked["role"], made["function"]["name"]) == ("assistant", "Write")
    assert json.loads(made["function"]["arguments"])["content"] == "hällo\n\tworld 🎉\n"
    assert (answered["role"], answered["tool_call_id"]) == ("tool", made["id"])
    assert "created successfully" in answered["content"]
    assert_each_extends_the_one_before(backend)


def test_a_tool_that_may_not_run_is_reported_to_the_model_and_does_not_run(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    file = home.project / "not.txt"
    backend = scripted(in_order(chat.call("Write", {"file_path": str(file), "content": "x"}), chat.text("I see")))
    done = ask(backend, "write it", "--permission-mode", "manual")
    assert (done.returncode, done.stdout) == (0, "I see\n")
    assert not file.exists()
    assert "permission" in results(backend.turns[-1].body)[0]["content"]


def test_two_calls_in_one_answer_both_run(ask: Ask, home: Home, scripted: Scripted) -> None:
    calls = [
        *chat.call_pieces("Bash", {"command": "echo one > one.txt; echo said-one"}, index=0, call_id="call_a"),
        *chat.call_pieces("Bash", {"command": "echo two > two.txt; echo said-two"}, index=1, call_id="call_b"),
        chat.finish("tool_calls"),
        chat.usage(),
    ]
    backend = scripted(in_order(calls, chat.text("both")))
    assert ask(backend, "x", "--allowedTools", "Bash").stdout == "both\n"
    assert [(home.project / f"{name}.txt").read_text() for name in ("one", "two")] == ["one\n", "two\n"]
    asked, *answered = backend.turns[-1].body["messages"][-3:]
    assert [call["id"] for call in asked["tool_calls"]] == [result["tool_call_id"] for result in answered]
    assert [result["content"] for result in answered] == ["said-one", "said-two"]


def test_arguments_with_a_missing_field_come_back_as_an_error_that_the_model_reads(
    ask: Ask, scripted: Scripted
) -> None:
    backend = scripted(in_order(chat.call("Read", {"path": "/x"}), chat.text("sorry")))
    assert ask(backend, "x").stdout == "sorry\n"
    (result,) = results(backend.turns[-1].body)
    assert "file_path" in result["content"]
    assert "InputValidationError" in result["content"]


def test_a_picture_that_was_read_reaches_a_model_that_takes_pictures(ask: Ask, home: Home, scripted: Scripted) -> None:
    file = home.project / "dot.png"
    file.write_bytes(bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360f8cf"
        "c0f01f00050001ff56c72f0d0000000049454e44ae426082"
    ))  # fmt: skip
    backend = scripted(in_order(chat.call("Read", {"file_path": str(file)}), chat.text("a dot")))
    assert ask(backend, "look").stdout == "a dot\n"
    seen = json.dumps(backend.turns[-1].body["messages"][-2:])
    assert '"image_url"' in seen
    assert "data:image/png;base64," in seen


def test_continue_sends_the_earlier_conversation_as_it_was(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(chat.text("the first answer"), chat.text("the second answer")))
    ask(backend, "the first question")
    done = ask(backend, "--continue", "the second question")
    assert (done.returncode, done.stdout) == (0, "the second answer\n")
    assert [message["role"] for message in backend.turns[-1].body["messages"]][-3:] == ["user", "assistant", "user"]
    assert words_of_person(backend.turns[-1].body) == "the second question"
    assert_each_extends_the_one_before(backend)


def test_resume_by_id_goes_on_with_that_conversation(ask: Ask, scripted: Scripted) -> None:
    backend = scripted(in_order(*(chat.text(f"answer {number}") for number in range(3))))
    first = json.loads(ask(backend, "--output-format", "json", "the first question").stdout)
    ask(backend, "another conversation")
    assert ask(backend, "--resume", first["session_id"], "and then").stdout == "answer 2\n"
    one, other, resumed = (exchange.body["messages"] for exchange in backend.turns)
    assert resumed[: len(one)] == one
    assert resumed[len(one)]["content"] == "answer 0"
    assert not any(message in resumed for message in other[1:])


def test_a_new_conversation_differs_from_the_person_s_words_on(ask: Ask, scripted: Scripted) -> None:
    """So a server with a prefix cache reads only those words: nothing of a session's own stands before them."""
    backend = scripted(in_order(chat.text("one"), chat.text("two")))
    ask(backend, "the question of one session")
    ask(backend, "something else")
    one, two = (exchange.body for exchange in backend.turns)
    assert one["tools"] == two["tools"]
    assert one["messages"][:-1] == two["messages"][:-1]
    heads = [body["messages"][-1]["content"].removesuffix(words_of_person(body)) for body in (one, two)]
    assert heads[0] == heads[1]
    assert heads[0].rstrip().endswith("</system-reminder>")


def test_thoughts_of_earlier_turns_go_back_to_a_server_that_reads_them(ask: Ask, scripted: Scripted) -> None:
    call = chat.call("Bash", {"command": "true"})
    backend = scripted(in_order([chat.delta(reasoning_content="why not"), *call], chat.text("ok")))
    ask(backend, "x", "--allowedTools", "Bash", mode="llamacpp")
    assert backend.turns[-1].body["messages"][-2]["reasoning_content"] == "why not"


def test_tool_search_loads_a_tool_that_is_then_listed_and_can_be_called(ask: Ask, scripted: Scripted) -> None:
    search = chat.call("ToolSearch", {"query": "select:CronList", "max_results": 1}, call_id="call_search")
    backend = scripted(in_order(search, chat.call("CronList", {}, call_id="call_list"), chat.text("none")))
    assert ask(backend, "what is planned").stdout == "none\n"
    before, loaded, used = (exchange.body for exchange in backend.turns)
    assert "CronList" not in tool_names(before)
    assert loaded["tools"][:-1] == before["tools"]  # at the end: what was there stays where it was
    assert tool_names(loaded)[-1] == "CronList"
    assert results(loaded)[-1]["content"] == "Loaded tool: CronList"
    assert used["tools"] == loaded["tools"]
    assert "No scheduled jobs" in results(used)[-1]["content"]
    for earlier, later in ((before, loaded), (loaded, used)):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]


def test_with_mlx_lm_a_loaded_tool_is_written_where_it_was_announced(ask: Ask, scripted: Scripted) -> None:
    """Its list of tools stands at the head of the prompt: there the newcomer would cost the whole of it."""
    search = chat.call("ToolSearch", {"query": "select:CronList", "max_results": 1})
    backend = scripted(in_order(search, chat.text("ok")))
    ask(backend, "what is planned", mode="mlx-lm")
    assert_each_extends_the_one_before(backend)
    (result,) = results(backend.turns[-1].body)
    assert json.loads(result["content"])["function"]["name"] == "CronList"


def test_a_sub_agent_works_beside_the_main_conversation_and_its_answer_comes_back(
    ask: Ask, home: Home, scripted: Scripted
) -> None:
    def script(exchange: Exchange) -> None:
        messages: list[dict[str, Any]] = exchange.body["messages"]
        if words_of_person(exchange.body) == "the task of the agent":
            together.wait(LIMIT_S)
            exchange.answer(chat.text("the finding is 42"))
        elif "the finding is 42" in messages[-1]["content"]:
            exchange.answer(chat.text("the agent found it"))
        elif messages[-1]["role"] == "tool":
            together.wait(LIMIT_S)
            exchange.answer(chat.text("I wait for it"))
        else:
            task = {"description": "look", "prompt": "the task of the agent", "subagent_type": "Explore"}
            exchange.answer(chat.call("Agent", task))

    together = threading.Barrier(2)  # passed only if both requests are open at once
    backend = scripted(script)
    done = ask(backend, "the question")
    assert (done.returncode, done.stdout) == (0, "I wait for it\n\nthe agent found it\n")
    (server,) = home.status()
    classes = [(turn["request_class"], turn["agent"] is not None) for turn in server["turns"]]
    assert sorted(classes) == [("main", False), ("main", False), ("main", False), ("subagent", True)]
    assert len({turn["session"] for turn in server["turns"]}) == 1
    main = [exchange.body["messages"] for exchange in backend.turns]
    first, second, third = sorted(
        (messages for messages in main if not messages[1]["content"].endswith("the task of the agent")), key=len
    )
    assert second[: len(first)] == first
    assert third[: len(second)] == second


def test_the_real_mlx_lm_server_reads_a_continued_conversation_from_its_cache(home: Home, mlx: str) -> None:
    arguments = ["--mode", "mlx-lm", "--base-url", mlx, "--tools", "Bash,Read,Edit,Write"]
    for words in (["-p", "say hello"], ["--continue", "-p", "and once more"]):
        done = home.run(*arguments, *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    (server,) = home.status()
    launches = list(dict.fromkeys(turn["launch"] for turn in server["turns"]))
    first, second = (next(turn for turn in server["turns"] if turn["launch"] == name) for name in launches)
    assert first["session"] == second["session"]
    assert first["tokens_prompt"] > 3000
    assert first["tokens_cached"] < 100
    assert second["tokens_prompt"] > first["tokens_prompt"]
    assert second["tokens_cached"] >= 0.97 * first["tokens_prompt"]
    assert second["tokens_prefilled"] == second["tokens_prompt"] - second["tokens_cached"]
    assert Path(second["project"]) == home.project
