"""Whole conversations as the client sends them: one request a turn, each with the history of the one before.

Every piece of text has a word of its own (`w12x`), so that a test can ask where it went.
"""

import re
from typing import Literal

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from anyclaude.prompt.canonical import ATTRIBUTION, Prompt, canonical
from anyclaude.prompt.head import Head, head_for, remembered
from anyclaude.prompt.lasting import is_counter
from anyclaude.prompt.own import own_signature
from anyclaude.prompt.policy import Policy
from anyclaude.prompt.reminders import REMINDER_CLOSE, REMINDER_OPEN
from anyclaude.wire.blocks import (
    Base64Source,
    Block,
    DocumentBlock,
    ImageBlock,
    OtherBlock,
    RedactedThinkingBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolReferenceBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from anyclaude.wire.messages import Message, MessagesRequest, Tool

WORD = re.compile(r"w\d+x")
_AROUND = (
    "{}",
    "{}",
    "{}\n",
    " \n{}\t\r\n",
    "<b>{}</b> & more",
    '"{}" \\n',
    "😀 {} é",
    f"I saw a {REMINDER_OPEN} {{}}",
)
_JOINING: tuple[str, ...] = ("Aaa", "Mcp", "Zzz")  # names before, among and after those at the head
_LOADING: tuple[str, ...] = ("Api", "Web")


class Conversation(Struct, frozen=True):
    """`n_joined` tools were listed later than at the start, announced or not."""

    requests: tuple[MessagesRequest, ...]
    n_joined: int = 0

    @property
    def heads(self) -> tuple[Head, ...]:
        """Each request's own, as the server learns them from one to the next."""
        used: list[Head] = []
        known: tuple[Head, ...] = ()
        for request in self.requests:
            used.append(head_for(known, request))
            known = remembered(known, used[-1])
        return tuple(used)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(canonical(*pair) for pair in zip(self.requests, self.heads, strict=True))


def counter(n: int) -> str:
    return f"<total_tokens>{n} tokens left</total_tokens>"


class _Author:
    """Draws pieces of a conversation; what it writes, nobody wrote before."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.n = 0

    def number(self) -> int:
        self.n += 1
        return self.n

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == one_in

    def words(self) -> str:
        return self.draw(st.sampled_from(_AROUND)).format(f"w{self.number()}x")

    def text(self) -> TextBlock:
        return TextBlock(self.words())

    def reminder(self) -> TextBlock:
        return TextBlock(f"{REMINDER_OPEN}\n{self.words()}\n{REMINDER_CLOSE}")

    def image(self) -> ImageBlock:
        return ImageBlock(Base64Source("image/png", f"w{self.number()}x"))

    def many(self, at_most: int) -> range:
        return range(self.draw(st.integers(0, at_most)))

    def first(self) -> Message:
        """The real client writes reminders, then the prompt; nothing says that it always will."""
        blocks: list[Block] = [self.reminder() for _ in self.many(2)]
        blocks += [self.text()]
        blocks += [self.draw(st.sampled_from((self.image, self.reminder, self.text)))() for _ in self.many(2)]
        return Message("user", tuple(blocks))

    def preamble(self) -> Message:
        blocks: list[Block] = [self.text() for _ in self.many(1)]
        blocks += [TextBlock(counter(self.number()))] if self.chance(6) else []
        others: Block = self.draw(
            st.sampled_from((self.text(), OtherBlock("new", {"type": "new", "n": f"w{self.number()}x"})))
        )
        return Message("system", (*blocks, others))

    def answer(self, tools: list[str], *, may_be_empty: bool) -> Message:
        blocks: list[Block] = []
        if self.chance(4):
            told = self.words()
            blocks.append(ThinkingBlock(f"own {told}", own_signature(f"own {told}")))
            if may_be_empty and self.chance(6):
                return Message("assistant", tuple(blocks))
        if self.chance(3):
            thought: tuple[Block, ...] = (ThinkingBlock(self.words(), "s"), RedactedThinkingBlock(f"w{self.number()}x"))
            blocks.append(self.draw(st.sampled_from(thought)))
        calls: list[Block] = [self.call(self.draw(st.sampled_from(tools))) for _ in self.many(3)]
        if not calls or self.chance(2):
            blocks.append(self.text())
        if len(calls) > 1 and self.chance(4):
            calls.insert(1, self.text())
        return Message("assistant", (*blocks, *calls))

    def call(self, tool: str) -> ToolUseBlock:
        call_id = self.draw(st.sampled_from((f"toolu_{self.number():024x}", f"toolu_{self.number():012x}_AbCdEf123")))
        return ToolUseBlock(call_id, tool, {"path": self.words(), "n": [1, {"z": None}]})

    def result(self, call: ToolUseBlock, loaded: list[str]) -> ToolResultBlock:
        content: list[Block] = [self.text() for _ in self.many(2)]
        content += [self.image()] if self.chance(5) else []
        if loaded and self.chance(2):
            content.append(ToolReferenceBlock(loaded.pop()))
        return ToolResultBlock(call.id, tuple(content), is_error=self.chance(6))

    def question(self, answer: Message, loading: list[str]) -> Message:
        """The results of all calls, first as the API demands, and what the person or the client says besides."""
        results: list[Block] = [
            self.result(block, loading) for block in answer.content if isinstance(block, ToolUseBlock)
        ]
        others: list[Block] = [TextBlock(REMINDER_OPEN + counter(self.number()) + REMINDER_CLOSE)] * self.chance(6)
        others += [self.reminder()] * self.chance(4)
        others += [self.beside()] * self.chance(8)
        if not results or self.chance(4):
            others.append(self.text())
        return Message("user", (*results, *others))

    def beside(self) -> Block:
        blocks: tuple[Block, ...] = (
            self.image(),
            DocumentBlock(TextSource(f"w{self.number()}x"), title=f"w{self.number()}x"),
            SearchResultBlock("https://x", f"w{self.number()}x", [{"type": "text", "text": f"w{self.number()}x"}]),
            OtherBlock("new", {"type": "new", "deep": {"a": f"w{self.number()}x"}}),
        )
        return self.draw(st.sampled_from(blocks))

    def tool(self, name: str, *, deferred: bool = False) -> Tool:
        schema = {"type": "object", "properties": {name: {"type": "string"}}}
        return Tool(name, f"does {name}", schema, defer_loading=True if deferred else None)


@st.composite
def conversations(draw: st.DrawFn, *, at_most: int = 4, with_empty_answers: bool = True) -> Conversation:
    """Requests that only append: tool loops, parallel calls, tools that load or join, blocks of ours, counters, which
    the client leaves where they were, or keeps the newest of. In an empty answer only we said something."""
    author = _Author(draw)
    counters: Literal["none", "stay", "move"] = draw(st.sampled_from(("none", "stay", "move")))
    system = (f"{ATTRIBUTION} cc_version=2.1.330.{{}};", author.words(), author.words())
    tools = [author.tool(name) for name in ("Bash", "Read")]
    tools += [Tool("web_search", type="web_search_20250305")] * author.chance(4)
    loading, joining = list(_LOADING), list(draw(st.permutations(_JOINING)))
    tools += [author.tool(name, deferred=True) for name in loading]
    messages = [author.first(), *([author.preamble()] if author.chance(2) else [])]
    requests: list[MessagesRequest] = []
    n_joined = 0

    def send() -> None:
        listed = tuple(draw(st.permutations(tools)))
        texts = (system[0].format(author.number()), *system[1:])
        requests.append(MessagesRequest("m", tuple(messages), system=texts, tools=listed))

    send()
    for _ in author.many(at_most):
        answer = author.answer([tool.name for tool in tools], may_be_empty=with_empty_answers)
        messages += [answer, author.question(answer, loading)]
        if author.chance(5):
            messages.append(Message("system", (author.text(),)))
        if counters == "move":
            messages = [message for message in messages if not _is_counter(message)]
        if counters != "none":
            messages.append(Message("system", (TextBlock(counter(author.number())),)))
        while joining and author.chance(3):
            added = author.tool(joining.pop(), deferred=author.chance(4))
            if added.defer_loading or author.chance(4):
                messages.append(Message("system", (ToolReferenceBlock(added.name),)))  # a `tool_addition`, decoded
            n_joined += not added.defer_loading
            tools.append(added)
        send()
    return Conversation(tuple(requests), n_joined)


def _is_counter(message: Message) -> bool:
    return message.role == "system" and all(is_counter(block) for block in message.content)


def policies() -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        late_tools=st.sampled_from(("expand", "list")),
        preamble=st.sampled_from(("user", "system")),
        system=st.sampled_from(("head", "user")),
        alternates=st.booleans(),
        one_call=st.booleans(),
        call_ids=st.sampled_from(("any", "nine")),
    )


def as_request(prompt: Prompt) -> MessagesRequest:
    """A canonical prompt as a request that a client could send."""
    late = tuple(replace(tool, defer_loading=True) for tool in prompt.late_tools)
    preamble = tuple(Message("system", (TextBlock(text),)) for text in prompt.preamble)
    n = 1 if prompt.messages and prompt.messages[0].role == "user" else 0
    messages = (*prompt.messages[:n], *preamble, *prompt.messages[n:])
    return MessagesRequest("m", messages, system=prompt.system, tools=prompt.tools + late)


def flat(messages: tuple[Message, ...]) -> list[tuple[str, Block]]:
    """A conversation as a model reads it: block after block, whose ever they are."""
    return [(message.role, block) for message in messages for block in message.content]
