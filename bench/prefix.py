"""What a prefix cache is worth: the real Claude Code on the real mlx_lm.server, turn by turn, and a plain translation.

    .venv/bin/python -m bench.prefix

The client's session goes through the gateway to a scripted front: it answers with tool calls that a toy model would
never make, and lets mlx_lm.server read each prompt as it was translated. The same requests, recorded by `trace`, then
go to a second, fresh mlx_lm.server as a plain translation writes them: every tool that is listed at the head, in the
client's order, and every `system` message in the system turn. All figures are the two servers' own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.backends.kinds import KINDS
from anyclaude.prompt.plain import plain
from anyclaude.telemetry.history import History
from anyclaude.telemetry.trace_files import TraceFolder, read_trace
from anyclaude.translate.request import chat_request
from anyclaude.wire.messages import MessagesRequest, decode_request, text_of
from anyclaude.wire.openai import encode_chat
from bench.gateway import machine
from demo.mlx_server import mlx_server
from demo.run import demo_environment

LONGEST_S = 600.0


class Step(Struct, frozen=True):
    """One turn: what came before it, and what the model answers, a tool's name and arguments or words."""

    title: str
    answer: tuple[str, dict[str, Any]] | str


class Launch(Struct, frozen=True):
    """One start of the client, and the time zone that it thinks it is in."""

    arguments: tuple[str, ...]
    steps: tuple[Step, ...]
    zone: str = "Etc/GMT+12"


SESSION = (
    Launch(
        ("what is planned here?",),
        (
            Step("a question", ("Bash", {"command": "ls -la /usr | head -20"})),
            Step("after a tool", ("ToolSearch", {"query": "select:CronList,WebFetch", "max_results": 2})),
            Step("after ToolSearch", ("CronList", {})),
            Step("after the tool it loaded", ("Bash", {"command": "echo nothing"})),
            Step("after one more tool", "Nothing is planned."),
        ),
    ),
    Launch(("--continue", "are you sure?"), (Step("continued", "Yes."),)),
    Launch(("--continue", "and today?"), (Step("continued on another day", "No."),), "Pacific/Kiritimati"),
    Launch(("--continue", "thank you"), (Step("once more that day", "Welcome."),), "Pacific/Kiritimati"),
    Launch(("something else",), (Step("a new session that day", "Well."),), "Pacific/Kiritimati"),
)


class Read(Struct, frozen=True):
    """What one server told of one prompt, in tokens."""

    n_prompt: int
    n_cached: int


def completion(url: str, body: dict[str, Any]) -> Read:
    """Lets the server read the prompt and make one token."""
    data = json.dumps(body | {"max_tokens": 1, "stream": False}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONGEST_S) as response:
        usage = json.load(response)["usage"]
    return Read(usage["prompt_tokens"], usage["prompt_tokens_details"]["cached_tokens"])


class Front(BaseHTTPRequestHandler):
    """Between the gateway and mlx_lm.server: its own answers, the server's figures."""

    protocol_version = "HTTP/1.0"

    @property
    def _front(self) -> "FrontServer":
        assert isinstance(self.server, FrontServer)
        return self.server

    def do_GET(self) -> None:
        with urllib.request.urlopen(f"{self._front.behind}{self.path}", timeout=LONGEST_S) as response:
            self._send("application/json", response.read())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        read = completion(self._front.behind, body)
        usage = {
            "prompt_tokens": read.n_prompt,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": read.n_cached},
        }
        chunks = [*_chunks(next(self._front.answers)), {"choices": [], "usage": usage}]
        events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks)
        self._send("text/event-stream", f"{events}data: [DONE]\n\n".encode())

    def _send(self, content_type: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class FrontServer(ThreadingHTTPServer):
    def __init__(self, behind: str, answers: Iterator[tuple[str, dict[str, Any]] | str]) -> None:
        super().__init__(("127.0.0.1", 0), Front)
        self.behind = behind
        self.answers = answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


def _chunks(answer: tuple[str, dict[str, Any]] | str) -> Iterator[dict[str, Any]]:
    if isinstance(answer, str):
        yield {"choices": [{"index": 0, "delta": {"content": answer}, "finish_reason": "stop"}]}
        return
    function = {"name": answer[0], "arguments": json.dumps(answer[1])}
    call = {"index": 0, "id": "call_0", "type": "function", "function": function}
    yield {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}


@contextmanager
def front(behind: str, launches: Sequence[Launch]) -> Generator[str]:
    server = FrontServer(behind, (step.answer for launch in launches for step in launch.steps))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.url
    finally:
        server.shutdown()
        server.server_close()


class Person:
    """A machine of the run's own with one project, under git."""

    def __init__(self, folder: Path) -> None:
        self._environment = demo_environment(folder)
        self._project = folder / "project"
        self.state = folder / "state" / "anyclaude"
        self._project.mkdir()
        subprocess.run(["git", "init", "-q", "-b", "main"], cwd=self._project, check=True)

    def anyclaude(self, *arguments: str, **environment: str) -> str:
        command = [sys.executable, "-m", "anyclaude", *arguments]
        more = self._environment | {"IS_SANDBOX": "1"} | environment
        done = subprocess.run(
            command, cwd=self._project, env=more, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"bench.prefix: {' '.join(arguments[:3])}: {done.stdout}{done.stderr}")
        return done.stdout

    def recorded(self) -> tuple[list[Read], list[MessagesRequest]]:
        """What the ledger says of each turn, and the requests as the client sent them."""
        with History(self.state / "ledger.sqlite3") as history:
            rows = history.turns()
        reads = [Read(row.tokens_prompt or 0, row.tokens_cached or 0) for row in rows]
        traces = [read_trace(file) for file in TraceFolder(self.state / "traces").files()]
        return reads, [decode_request(msgspec.json.encode(trace.request)) for trace in traces]


def translated_plainly(request: MessagesRequest) -> dict[str, Any]:
    """As a gateway does that moves what chat completions do not know to the nearest place that they do."""
    prompt = plain(request)
    words = tuple(text_of(message.content) for message in prompt.messages if message.role == "system")
    others = tuple(message for message in prompt.messages if message.role != "system")
    prompt = replace(prompt, system=prompt.system + words, messages=others)
    body = chat_request(prompt, request, KINDS["mlx-lm"].profile, model=None, max_tokens=1)
    return json.loads(encode_chat(body))


def measure(folder: Path) -> tuple[list[Read], list[Read]]:
    """Of each turn: through the gateway, and as a plain translation."""
    with ExitStack() as stack:
        person = Person(folder / "home")
        url = stack.enter_context(front(stack.enter_context(mlx_server(folder / "ours")), SESSION))
        person.anyclaude("trace", "on")
        stack.callback(person.anyclaude, "stop", "--force")
        for launch in SESSION:
            options = ("--allowedTools", "Bash,CronList", "--mode", "mlx-lm", "--base-url", url)
            person.anyclaude("-p", *launch.arguments, *options, TZ=launch.zone)
    ours, requests = person.recorded()
    with mlx_server(folder / "plain") as url:
        return ours, [completion(url, translated_plainly(request)) for request in requests]


def print_table(ours: list[Read], plainly: list[Read]) -> None:
    titles = [step.title for launch in SESSION for step in launch.steps]
    print(f"{'':28}{'anyclaude':>27}{'plain translation':>27}")
    print(f"{'tokens':28}{'prompt':>9}{'cached':>9}{'read':>9}{'prompt':>9}{'cached':>9}{'read':>9}")
    for title, one, other in zip(titles, ours, plainly, strict=True):
        print(f"{title:28}{_cells(one)}{_cells(other)}")
    one, other = (Read(sum(r.n_prompt for r in reads), sum(r.n_cached for r in reads)) for reads in (ours, plainly))
    print(f"{'in all':28}{_cells(one)}{_cells(other)}")


def _cells(read: Read) -> str:
    return f"{read.n_prompt:>9,}{read.n_cached:>9,}{read.n_prompt - read.n_cached:>9,}"


def main() -> None:
    argparse.ArgumentParser(prog="python -m bench.prefix").parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="anyclaude-bench-") as folder:
        ours, plainly = measure(Path(folder))
    print(f"{before}\n")
    print_table(ours, plainly)


if __name__ == "__main__":
    main()
