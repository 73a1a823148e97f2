"""What a session of the real client left behind, seen from both sides: the ledger's turns with their sections, what
`anyclaude cache why` says of them, and the prompts that the model server really got. Nothing of it is kept."""

import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from anyclaude.prompt.explain import difference, n_equal
from anyclaude.telemetry.history import History
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow
from tests.support.backend import ScriptedBackend
from tests.support.home import Home
from tests.support.script import Body, Message
from tests.support.wait import wait_until


class Recorded(Struct, frozen=True):
    """One turn of the ledger."""

    row: TurnRow
    sections: Sequence[SectionRow]

    @property
    def kinds(self) -> set[str]:
        return {section.kind for section in self.sections}

    @property
    def names(self) -> list[str]:
        return [section.name for section in self.sections]

    @property
    def n_characters(self) -> int:
        return sum(section.n_characters for section in self.sections)


def recorded(home: Home, n: int) -> list[Recorded]:
    """The `n` turns of conversations, oldest first, as soon as they are in the ledger: it is written behind."""

    def turns() -> list[Recorded]:
        if not path.exists():
            return []
        with History(path) as history:
            return [
                Recorded(row, history.sections(row.id))
                for row in history.turns()
                if row.id is not None and row.request_class != "auxiliary"
            ]

    path = home.state / "ledger.sqlite3"
    wait_until(lambda: len(turns()) >= n, f"the ledger has {n} turns")
    found = turns()
    assert len(found) == n
    assert [turn.row.error for turn in found] == [None] * n
    return found


def why(home: Home, turn: Recorded) -> dict[str, Any]:
    """What the person is told of it."""
    answer = home.run("cache", "why", str(turn.row.id), "--json")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def n_shared(earlier: Recorded, later: Recorded) -> int:
    """Sections from the first on that are equal."""
    return n_equal(earlier.sections, later.sections)


def n_shared_characters(earlier: Recorded, later: Recorded) -> int:
    """Of the sections that are equal."""
    return sum(section.n_characters for section in earlier.sections[: n_shared(earlier, later)])


def assert_grew(earlier: Recorded, later: Recorded) -> None:
    """The earlier prompt is a prefix of the later one, and the ledger found that by itself."""
    changed = difference(earlier.sections, later.sections)
    assert changed is None, f"turn {later.row.id}: {changed}"
    assert len(later.sections) > len(earlier.sections)
    assert (later.row.compared_with, later.row.n_shared) == (earlier.row.id, len(earlier.sections))


def assert_only_grew(turns: Sequence[Recorded]) -> None:
    assert len(turns) > 1
    for earlier, later in itertools.pairwise(turns):
        assert_grew(earlier, later)


def bodies(backend: ScriptedBackend) -> list[Body]:
    """The prompts that the server was sent, and nothing else that it was asked."""
    return [exchange.body for exchange in backend.turns if exchange.path.endswith("/chat/completions")]


def extends(earlier: Body, later: Body) -> bool:
    """Whether nothing that was sent is sent differently later: what a server's own prefix cache needs."""
    n_sent = len(earlier["messages"])
    return (
        later["tools"] == earlier["tools"]
        and later["messages"][:n_sent] == earlier["messages"]
        and len(later["messages"]) > n_sent
    )


def assert_each_extends(sent: Sequence[Body]) -> None:
    assert len(sent) > 1
    for n, (earlier, later) in enumerate(itertools.pairwise(sent)):
        assert extends(earlier, later), f"request {n + 1} does not extend request {n}"


def text_of(body: Body) -> str:
    """All words that a model reads, in the order in which most templates write them: tools, then messages."""
    return "".join([*(json.dumps(tool) for tool in body["tools"]), *(_words(message) for message in body["messages"])])


def _words(message: Message) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def share_kept(home: Home, earlier: Body, later: Body) -> float:
    """Of the earlier prompt's characters, those that the later one begins with. The test's own folder is written short,
    as a path and as the client makes a name of it, so that the figure is the same wherever it lies."""
    one, other = (
        text_of(body).replace(str(home.root), "/root").replace(re.sub(r"\W|_", "-", str(home.root)), "-root")
        for body in (earlier, later)
    )
    n_equal_characters = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other)))  # noqa: B905
    return n_equal_characters / len(one)
