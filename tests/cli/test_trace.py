"""`anyclaude trace …` as a person types it, on turns that a gateway really answered."""

import json
import stat
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from anyclaude.telemetry.ledger import Ledger
from anyclaude.telemetry.trace_files import TraceFolder
from anyclaude.telemetry.traces import Traces
from tests.support import chat
from tests.support.backend import Exchange, Script, ScriptedBackend
from tests.support.gateway import RunningGateway, request, running_gateway, target
from tests.support.home import Home
from tests.support.script import in_order
from tests.support.terminal import Terminal
from tests.support.wait import wait_until

Start = Callable[[Script], ScriptedBackend]
BASH = {"name": "Bash", "description": "runs a command", "input_schema": {"type": "object"}}
LONG = "a question with many words " * 40


@contextmanager
def recording(home: Home) -> Generator[RunningGateway]:
    """A gateway that writes its ledger and its traces where this home's commands look."""
    assert home.run("trace", "on").returncode == 0
    ledger = Ledger(home.state / "ledger.sqlite3")
    with running_gateway(ledger, Traces(home.state / "traces")) as gateway:
        yield gateway


def ask(gateway: RunningGateway, backend: ScriptedBackend, body: dict[str, Any], session: str = "s1") -> None:
    token = gateway.session(target(backend.url)).token
    answer = gateway.ask("POST", "/v1/messages", body, token=token, x_claude_code_session_id=session)
    assert answer.status in (200, 502), answer.body


def json_of(home: Home, *arguments: str) -> Any:
    done = home.run("trace", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines_of(home: Home, *arguments: str) -> list[str]:
    done = home.run("trace", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def backend(scripted: Start) -> ScriptedBackend:
    return scripted(
        in_order(
            [chat.delta(reasoning_content="hm"), *chat.call("Bash", {"command": "ls"})],
            chat.text("two files and a folder"),
            chat.text("something else"),
        )
    )


@pytest.fixture
def recorded(home: Home, backend: ScriptedBackend) -> list[dict[str, Any]]:
    """A tool call, its result, and a turn of another session; the rows of `ls`."""
    reminder = {"type": "text", "text": "<system-reminder>\nof the client\n</system-reminder>"}
    said: list[Any] = [{"role": "user", "content": [reminder, {"type": "text", "text": LONG}]}]
    with recording(home) as gateway:
        ask(gateway, backend, request(messages=said, tools=[BASH], system="be brief"))
        call = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls"}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "a\nb\nc/"}
        said += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        ask(gateway, backend, request(messages=said, tools=[BASH], system="be brief"))
        changed = {**BASH, "description": "runs one command"}
        ask(gateway, backend, request("other words", tools=[changed], system="be brief\nand kind"), session="s2")
    return json_of(home, "ls")["traces"]


def test_on_says_what_it_does_and_status_says_that_it_is_on(home: Home) -> None:
    assert "tracing" not in home.run("status").stdout
    shown = home.run("trace", "on", ANYCLAUDE_TRACE_BUDGET_MB="3", ANYCLAUDE_TRACE_DAYS="2").stdout
    folder = home.state / "traces"
    for words in ("tracing is on", str(folder), "3 MB and 2 days", "anyclaude trace off", "your words", "--private"):
        assert words in shown
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "on").stat().st_mode) == 0o600
    assert json.loads((folder / "on").read_text()) == {"budget_bytes": 3_000_000, "days": 2.0}
    assert "tracing is on" in home.run("status").stdout
    assert json.loads(home.run("status", "--json").stdout)["is_tracing"] is True
    assert home.run("trace", "off").stdout == "tracing is off\n"
    assert json.loads(home.run("status", "--json").stdout)["is_tracing"] is False


def test_off_tells_how_long_the_rest_stays_and_how_to_delete_it(home: Home, recorded: list[dict[str, Any]]) -> None:
    size = sum(row["bytes"] for row in recorded)
    first, second, third = lines_of(home, "off")
    assert first == "tracing is off"
    assert second == f"3 recorded turns ({size / 1000:.1f} kB) stay until they are 7 days old;"
    assert third == f"to delete them now: rm -r {home.state / 'traces'}"


def test_ls_lists_turns_with_the_ledgers_numbers(home: Home, recorded: list[dict[str, Any]]) -> None:
    assert [(row["turn"], row["session"], row["is_finished"], row["error"]) for row in recorded] == [
        (1, "s1", True, None), (2, "s1", True, None), (3, "s2", True, None),
    ]  # fmt: skip
    assert [row["stop_reason"] for row in recorded] == ["tool_use", "end_turn", "end_turn"]
    files = TraceFolder(home.state / "traces").files()
    assert [row["bytes"] for row in recorded] == [path.stat().st_size for path in files]
    assert all(row["duration_s"] > 0 and row["events"] > 5 for row in recorded)
    heading, *rows = lines_of(home, "ls")
    assert heading.split() == ["turn", "request", "time", "class", "model", "whole", "events", "size", "end"]
    assert [(row.split()[0], row.split()[1], row.split()[-1]) for row in rows] == [
        (str(row["turn"]), row["request_id"][:12], row["stop_reason"]) for row in recorded
    ]


def test_show_tells_what_was_asked_what_came_when_and_the_answer(home: Home, recorded: list[dict[str, Any]]) -> None:
    shown = json_of(home, "show", "1")
    assert shown["header"]["request_id"] == recorded[0]["request_id"]
    asked = shown["asked"]
    assert (asked["tools"], asked["system_characters"], asked["messages"], asked["max_tokens"]) == (1, 8, 1, 100)
    assert asked["last_words"] == LONG[:299] + "…"
    assert [call["name"] for call in shown["answer"]["calls"]] == ["Bash"]
    (arguments,) = [step for step in shown["events"] if step["what"] == "input_json_delta"]
    assert (arguments["n"], arguments["n_characters"]) == (2, len(json.dumps({"command": "ls"})))
    assert shown["end"]["tokens_prompt"] == 1000
    text = "\n".join(lines_of(home, "show", "1"))
    for words in ("asked-for, at most 100 tokens", "1 tools", 'call Bash {"command": "ls"}', "cached 900", "thinking"):
        assert words in text
    assert "of the client" not in text
    assert "last words: (results of Bash)" in "\n".join(lines_of(home, "show", "2"))
    assert "two files and a folder" in lines_of(home, "show", "2")


def test_a_turn_is_named_by_number_by_request_id_by_its_beginning_or_as_the_last(
    home: Home, recorded: list[dict[str, Any]]
) -> None:
    last = recorded[-1]["request_id"]
    for name in ("3", last, last[:12], last.removeprefix("req_")[:14], "last"):
        assert json_of(home, "show", name)["header"]["request_id"] == last
    assert json_of(home, "show")["header"]["request_id"] == last


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "9"], "there is no turn 9 in the ledger"),
        (["show", "req_zz"], "there is no trace of turn req_zz"),
        (["show", "req_"], "the beginning of 3 request ids"),
        (["diff", "1"], "the first traced turn of its session; name two"),
        (["export", "1", "/dev/null"], "/dev/null exists already"),
        (["export", "1", "/nowhere/x.json"], "/nowhere/x.json cannot be written: No such file"),
        (["replay", "1", "--base-url", "http://127.0.0.1:1"], "no model server answers"),
    ],
)
def test_a_mistake_is_one_message_with_what_to_do(
    home: Home, recorded: list[dict[str, Any]], arguments: list[str], words: str
) -> None:
    done = home.run("trace", *arguments)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("anyclaude: ")
    assert words in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_without_a_trace_every_command_says_how_to_get_one(home: Home) -> None:
    assert "anyclaude trace on" in home.run("trace", "ls").stdout
    assert json_of(home, "ls") == {"traces": []}
    for command in ("show", "diff", "replay", "export"):
        done = home.run("trace", command)
        assert done.returncode == 2
        assert "`anyclaude trace on` records every turn" in done.stderr
    assert not (home.state / "traces").exists()


def test_diff_shows_the_words_that_differ_section_by_section(home: Home, recorded: list[dict[str, Any]]) -> None:
    found = json_of(home, "diff", "1", "3")
    places = [(change["before"], change["after"]) for change in found["changes"]]
    assert places == [
        ("tools.Bash", "tools.Bash"),
        ("system.0", "system.0"),
        ("messages.0.reminder.0", None),
        ("messages.0.text.1", None),
        (None, "messages.0.text.0"),
    ]
    assert found["equal"] == 0
    text = "\n".join(lines_of(home, "diff", "1", "3"))
    assert '-  "description": "runs a command",\n+  "description": "runs one command",' in text
    assert "--- a/system.0\n+++ b/system.0" in text
    assert " be brief\n+and kind" in text


def test_a_turn_is_compared_with_the_one_before_it_in_its_session(home: Home, recorded: list[dict[str, Any]]) -> None:
    first, *_ = lines_of(home, "diff", "2")
    ids = [row["request_id"] for row in recorded]
    assert first == f"{ids[0]} (-) and {ids[1]} (+): 4 sections are equal, 2 differ"
    assert [change["after"] for change in json_of(home, "diff", "2")["changes"]] == [
        "messages.1.tool_use.Bash.0",
        "messages.2.tool_result.Bash.0",
    ]


def test_replay_without_a_server_named_asks_the_one_that_answered_then(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    n_before, earlier = len(backend.turns), backend.turns[1].body
    backend.script = in_order(chat.text("two files and a folder"))
    found = json_of(home, "replay", "2")
    (turn,) = backend.turns[n_before:]
    assert turn.body == earlier
    assert found["same"] == {"text": True, "tool_calls": True}
    for side in ("recorded", "replayed"):
        row = found[side]
        assert (row["model"], row["tokens_prompt"], row["tokens_cached"], row["tokens_out"]) == (
            "scripted", 1000, 900, 5,
        )  # fmt: skip
        assert 0 < row["first_s"] <= row["whole_s"]
        assert (row["stop_reason"], row["characters"]) == ("end_turn", 22)


def test_replay_gives_a_tool_that_joined_the_place_that_it_had(home: Home, scripted: Start) -> None:
    backend = scripted(in_order(chat.text("one"), chat.text("two"), chat.text("two")))
    said: list[Any] = [{"role": "user", "content": "hello"}]
    with recording(home) as gateway:
        ask(gateway, backend, request(messages=said, tools=[BASH]))
        said += [{"role": "assistant", "content": "one"}, {"role": "user", "content": "more"}]
        ask(gateway, backend, request(messages=said, tools=[{**BASH, "name": "Ask"}, BASH]))
    assert home.run("trace", "replay", "2").returncode == 0
    recorded, replayed = (turn.body for turn in backend.turns[1:])
    assert [each["function"]["name"] for each in recorded["tools"]] == ["Bash", "Ask"]
    assert replayed == recorded
    assert [change["before"] for change in json_of(home, "diff", "1", "2")["changes"]] == [None] * 4


def test_replay_on_another_server_shows_where_the_answers_part(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]], scripted: Start
) -> None:
    def another(exchange: Exchange) -> None:
        exchange.answer([*chat.text("two files or more")[:-2], *chat.call("Bash", {"command": "pwd"})])

    other = scripted(another)
    other.model = "other-model"
    n_before = len(backend.turns)
    done = home.run("trace", "replay", "2", "--mode", "openai", "--base-url", other.url, ANYCLAUDE_API_KEY="k-of-now")
    assert done.returncode == 0, done.stderr
    assert len(backend.turns) == n_before
    assert other.turns[0].body["model"] == "other-model"
    assert other.turns[0].headers["authorization"] == "Bearer k-of-now"
    rows = {line.split("  ")[0]: line.split()[-2:] for line in done.stdout.splitlines()[:12]}
    assert rows["model"] == ["scripted", "other-model"]
    assert rows["tool calls"] == ["-", "Bash"]
    assert rows["end"] == ["end_turn", "tool_use"]
    assert "the texts differ from character 10 on" in done.stdout
    assert "  recorded: and a folder" in done.stdout
    assert "  replayed: or more" in done.stdout
    assert '  replayed: Bash {"command": "pwd"}' in done.stdout


def test_replay_gives_no_key_to_a_server_that_nobody_named(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    n_before = len(backend.exchanges)
    backend.script = in_order(chat.text("x"))
    assert home.run("trace", "replay", "2", ANYCLAUDE_API_KEY="key-for-another").returncode == 0
    assert len(backend.exchanges) > n_before
    assert all("key-for-another" not in str(exchange.headers) for exchange in backend.exchanges)


def test_replay_sends_the_model_that_was_named_even_where_the_recorded_one_is_there(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    backend.script = in_order(chat.text("x"))
    assert home.run("trace", "replay", "2", "--base-url", backend.url, "--model", "wanted").returncode == 0
    assert backend.turns[-1].body["model"] == "wanted"


def test_replay_ends_with_the_servers_refusal(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    def refuses(exchange: Exchange) -> None:
        exchange.json(500, {"error": {"message": "out of memory"}})

    backend.script = refuses
    done = home.run("trace", "replay", "2")
    assert done.returncode == 1
    assert "out of memory" in done.stderr
    assert done.stdout == ""


def test_replay_shows_on_a_terminal_how_far_the_prompt_is_read(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    def reads(exchange: Exchange) -> None:
        exchange.start()
        progress = {"choices": [], "prompt_progress": {"processed": 512, "total": 1000}}
        exchange.chunks([progress, *chat.text("two files and a folder")])
        exchange.done()

    backend.script = reads
    with Terminal(home.command("trace", "replay", "2"), cwd=home.project, environment=home.environment) as terminal:
        terminal.wait_for("prompt: 512 of 1,000 tokens read")
        terminal.wait_for("the text is the same")


def test_export_is_one_document_and_overwrites_nothing(home: Home, recorded: list[dict[str, Any]]) -> None:
    done = home.run("trace", "export", "1")
    document = json.loads(done.stdout)
    assert document["version"] == 1
    assert document["request"]["system"] == "be brief"
    assert document["events"][0]["event"] == "message_start"
    assert document["end"]["request_id"] == document["request_id"] == recorded[0]["request_id"]
    assert "holds the words of the prompt" in done.stderr
    path = home.project / "turn.json"
    first = home.run("trace", "export", "1", "turn.json")
    assert first.returncode == 0
    assert first.stdout == ""
    assert json.loads(path.read_text("utf-8")) == document
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert home.run("trace", "export", "2", "turn.json").returncode == 2
    assert json.loads(path.read_text("utf-8")) == document


def cut_off(home: Home) -> Path:
    """The newest trace as a server that was killed leaves it."""
    path = TraceFolder(home.state / "traces").files()[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:6]) + b'{"at_s":')
    return path


def test_a_turn_that_was_cut_off_is_unfinished_everywhere_and_can_be_used(
    home: Home, backend: ScriptedBackend, recorded: list[dict[str, Any]]
) -> None:
    cut_off(home)
    assert lines_of(home, "ls")[-1].endswith("unfinished")
    assert "unfinished" in "\n".join(lines_of(home, "show"))
    assert json_of(home, "stats")["unfinished"] == 1
    assert json.loads(home.run("trace", "export").stdout)["end"] is None
    backend.script = in_order(chat.text("something else"))
    found = json_of(home, "replay")
    assert found["recorded"]["stop_reason"] is None
    assert found["replayed"]["stop_reason"] == "end_turn"


def test_a_damaged_trace_is_named_and_hides_no_other(home: Home, recorded: list[dict[str, Any]]) -> None:
    path = TraceFolder(home.state / "traces").files()[1]
    path.write_bytes(b"")
    done = home.run("trace", "ls", "--json")
    assert len(json.loads(done.stdout)["traces"]) == 2
    assert f"{path} is empty" in done.stderr
    assert home.run("trace", "show", "2").returncode == 1


def test_stats_tell_what_is_kept_of_what_is_allowed(home: Home, recorded: list[dict[str, Any]]) -> None:
    assert json_of(home, "stats") == {
        "is_on": True,
        "folder": str(home.state / "traces"),
        "traces": 3,
        "unfinished": 0,
        "bytes": sum(row["bytes"] for row in recorded),
        "budget_bytes": 200_000_000,
        "days": 7.0,
        "oldest_started_at": recorded[0]["started_at"],
    }
    text = "\n".join(lines_of(home, "stats"))
    assert "tracing is on" in text
    assert "3 turns, 0 of them unfinished" in text
    assert "of 200.0 MB" in text


def test_a_failed_turn_shows_its_error(home: Home, scripted: Start) -> None:
    broken = scripted(lambda exchange: exchange.json(502, {"error": {"message": "bad weather"}}))
    with recording(home) as gateway:
        ask(gateway, broken, request())
    (row,) = json_of(home, "ls")["traces"]
    assert row["error"].startswith("api_error: ")
    assert "bad weather" in row["error"]
    assert "bad weather" in "\n".join(lines_of(home, "show"))


def test_a_launch_is_traced_from_the_moment_it_is_turned_on(home: Home, scripted: Start) -> None:
    """The background server looks at the switch with every turn."""
    backend = scripted(in_order(chat.text("one"), chat.text("two")))
    assert home.run("-p", "first", "--base-url", backend.url).stdout == "one\n"
    home.run("trace", "on")
    assert home.run("-p", "second", "--base-url", backend.url).stdout == "two\n"
    wait_until(lambda: [row for row in json_of(home, "ls")["traces"] if row["is_finished"]], "the turn is traced")
    (row,) = json_of(home, "ls")["traces"]
    wait_until(lambda: json_of(home, "ls")["traces"][0]["turn"] is not None, "the ledger has the turn")
    assert json_of(home, "show", "2")["asked"]["last_words"].endswith("second")
    assert row["backend"] == "openai"


def test_a_head_that_cannot_be_read_is_named(home: Home, recorded: list[dict[str, Any]]) -> None:
    (file, *_) = sorted((home.state / "traces").glob("*.jsonl"))
    header, _, rest = file.read_text("utf-8").partition("\n")
    file.write_text(json.dumps(json.loads(header) | {"head": {"tools": 5}}) + "\n" + rest, "utf-8")
    done = home.run("trace", "replay", recorded[0]["request_id"], "--base-url", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    shown = home.run("trace", "diff", recorded[0]["request_id"], recorded[0]["request_id"])
    assert "the head in the trace of" in shown.stderr
