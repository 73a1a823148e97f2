"""Markers in the place of every secret, through a real launch with tracing on: nothing that we write holds one.

The files that must hold tokens, and are 0600, are the session's own, the server's address and the client's overlay.
"""

import json
from pathlib import Path

from tests.client.conftest import Ask, Scripted
from tests.support import chat
from tests.support.backend import Exchange
from tests.support.home import Home
from tests.support.script import in_order
from tests.support.wait import wait_until

API_KEY = "marker-api-key-7f3a91"
PASTED = "sk-ant-api03-marker7f3a91pasted"
READ = "ghp_marker7f3a91readfromafile00000000"


def written_files(home: Home) -> list[Path]:
    """Everything of ours, in every folder, but what is there to hold tokens."""
    holders = [home.runtime / "sessions", home.runtime / "overlays", *home.runtime.glob("server-*.json")]
    places = [home.root / "state", home.root / "cache", home.root / "config", home.root / "run", home.root / "tmp"]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    return [path for path in files if not any(path.is_relative_to(holder) for holder in holders)]


def tokens_of(home: Home) -> list[str]:
    """The running session's and the server's, as their own files hold them."""
    files = [*(home.runtime / "sessions").glob("*.json"), *home.runtime.glob("server-*.json")]
    return [json.loads(path.read_text("utf-8"))["token"] for path in files]


def test_no_marker_is_in_any_file_that_a_traced_launch_writes(ask: Ask, home: Home, scripted: Scripted) -> None:
    assert home.run("trace", "on").returncode == 0
    (home.project / "notes.txt").write_text(f"token: {READ}\n")
    tokens: list[str] = []

    def reads_a_file(exchange: Exchange) -> None:
        tokens.extend(tokens_of(home))
        exchange.answer(chat.call("Bash", {"command": f"cat notes.txt; echo {PASTED} {' '.join(tokens)}"}))

    def repeats_all_it_knows(exchange: Exchange) -> None:
        said = exchange.body["messages"][-1]["content"]
        assert READ in said
        assert all(token in said for token in tokens)
        exchange.answer(chat.text(f"{PASTED}, {READ}, {API_KEY}, {', '.join(tokens)}"))

    def refuses(exchange: Exchange) -> None:
        exchange.json(401, {"error": {"message": f"{API_KEY} may not ask about {PASTED}"}})

    backend = scripted(in_order(reads_a_file, repeats_all_it_knows, refuses))
    launch = ("--debug", "--dangerously-skip-permissions")
    done = ask(backend, f"look after {PASTED}", *launch, ANYCLAUDE_API_KEY=API_KEY)
    assert done.returncode == 0, done.stderr
    assert READ in done.stdout  # the person sees what the model said
    assert ask(backend, "again", *launch, ANYCLAUDE_API_KEY=API_KEY).returncode != 0
    assert all(turn.headers["authorization"] == f"Bearer {API_KEY}" for turn in backend.turns)
    assert len(tokens) == 2

    finished = lambda: [row for row in traces(home) if row["is_finished"]]  # noqa: E731
    wait_until(lambda: len(finished()) == 3, "three turns are traced")
    markers = {marker.encode() for marker in (API_KEY, PASTED, READ, *tokens)}
    names = {path.name for path in written_files(home)}
    assert {"ledger.sqlite3", "server.log"} <= names  # the search looks where there is something
    assert sum(name.endswith(".jsonl") for name in names) == 3
    for path in written_files(home):
        data = path.read_bytes()
        assert not [marker for marker in markers if marker in data], path
    for name in ("1", "2", "3"):
        for command in ("show", "export"):
            shown = home.run("trace", command, name)
            assert shown.returncode == 0, shown.stderr
            assert not [marker for marker in markers if marker in shown.stdout.encode()]
    assert (
        "[secret: Anthropic key], [secret: GitHub token], [secret], [secret]" in home.run("trace", "show", "2").stdout
    )


def traces(home: Home) -> list[dict[str, object]]:
    return json.loads(home.run("trace", "ls", "--json").stdout)["traces"]


def test_a_private_launch_leaves_no_trace(ask: Ask, home: Home, scripted: Scripted) -> None:
    home.run("trace", "on")
    backend = scripted(in_order(chat.text("private"), chat.text("public")))
    assert ask(backend, "the marmalade plan", "--private").stdout == "private\n"
    assert ask(backend, "hello").stdout == "public\n"
    wait_until(lambda: traces(home), "the public turn is traced")
    assert len(traces(home)) == 1
    assert not [path for path in written_files(home) if b"marmalade" in path.read_bytes()]
