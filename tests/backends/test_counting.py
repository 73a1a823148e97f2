import itertools
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import pytest

from anyclaude.backends.counting import AT_ONCE, PATIENCE, Counts
from anyclaude.backends.http import RESTART_S
from anyclaude.backends.seam import Count
from tests.support.backend import LIMIT_S, Exchange, Script, ScriptedBackend
from tests.support.counting import (
    IN_ONE,
    RENDER,
    TOKENIZE,
    Counting,
    Routes,
    always,
    in_order,
    llama_server,
    paths,
    recorded,
    serving,
)

Start = Callable[[Script], ScriptedBackend]
TOOL = {"name": "Bash", "description": "Runs a command.", "input_schema": {"type": "object", "properties": {}}}
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
REFUSED = (400, {"error": {"message": "this one is refused"}})
PROBED = [RENDER]  # the template is looked at once


def counted(counting: Counting, *prompts: str, **fields: Any) -> list[Count]:
    """One after the other."""

    async def run() -> list[Count]:
        return [await counting.of(words, **fields) for words in prompts or ("How many files?",)]

    return anyio.run(run)


def at_once(counting: Counting, *prompts: str) -> list[Count]:
    async def run() -> list[Count]:
        found: list[Count] = []

        async def one(words: str) -> None:
            found.append(await counting.of(words))

        async with anyio.create_task_group() as group:
            for words in prompts:
                group.start_soon(one, words)
        return found

    return anyio.run(run)


def measured(*tokens: int) -> list[Count]:
    return [Count(each, is_measured=True) for each in tokens]


def is_estimate(count: Count) -> bool:
    return not count.is_measured and count.tokens > 0


def test_a_newer_llama_server_counts_in_one_step(scripted: Start) -> None:
    routes = llama_server() | {IN_ONE: always(recorded("llamacpp", IN_ONE))}
    backend = scripted(serving("llamacpp", routes))
    counting = Counting(backend.url, "llamacpp", api_key="key")
    assert counted(counting, "one", "two", tools=[TOOL]) == measured(56, 56)
    assert paths(backend) == [*PROBED, IN_ONE, IN_ONE]
    body = backend.turns[1].body
    assert body["messages"] == [{"role": "user", "content": "one"}]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["Bash"]
    assert {exchange.headers["authorization"] for exchange in backend.turns} == {"Bearer key"}


def test_an_older_llama_server_renders_and_then_tokenizes(scripted: Start) -> None:
    routes = llama_server(is_older=True) | {RENDER: always(recorded("llamacpp", RENDER))}
    backend = scripted(serving("llamacpp", routes))
    counting = Counting(backend.url, "llamacpp")
    n_tokens = len(recorded("llamacpp", TOKENIZE)["tokens"])
    assert counted(counting, "one", "two", tools=[TOOL]) == measured(n_tokens, n_tokens)
    assert paths(backend) == [*PROBED, IN_ONE, RENDER, TOKENIZE, RENDER, TOKENIZE]  # what is missing is not asked again
    rendered, tokenized = backend.turns[2].body, backend.turns[3].body
    assert rendered == backend.turns[1].body
    prompt = recorded("llamacpp", RENDER)["prompt"]
    assert tokenized == {"content": prompt, "add_special": True, "parse_special": True, "model": "scripted"}


def test_vllm_counts_the_chat_form(scripted: Start) -> None:
    backend = scripted(serving("vllm", {TOKENIZE: always(recorded("vllm", TOKENIZE))}))
    counting = Counting(f"{backend.url}/v1", "vllm")
    fields: dict[str, Any] = {"tools": [TOOL], "thinking": {"type": "disabled"}}
    assert counted(counting, **fields) == measured(11)
    function = {"name": "Bash", "description": "Runs a command.", "parameters": TOOL["input_schema"]}
    assert backend.turns[0].body == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "How many files?"}],
        "tools": [{"type": "function", "function": function}],
        "add_generation_prompt": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_the_routes_stand_at_the_root_whatever_the_address(scripted: Start, kind: str) -> None:
    routes: Routes = (
        llama_server(is_older=True) if kind == "llamacpp" else {TOKENIZE: always(recorded("vllm", TOKENIZE))}
    )
    backend = scripted(serving(kind, routes))
    for url in (backend.url, f"{backend.url}/v1"):
        assert counted(Counting(url, kind))[0].is_measured
    assert {path.removeprefix("/v1/chat/completions") for path in paths(backend)} <= {"/input_tokens", RENDER, TOKENIZE}


@pytest.mark.parametrize("kind", ["openai", "mlx-lm", "ollama", "lmstudio"])
def test_a_server_that_cannot_count_is_never_asked(scripted: Start, kind: str) -> None:
    backend = scripted(serving("vllm", {}))
    assert is_estimate(counted(Counting(backend.url, kind))[0])
    assert backend.exchanges == []


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_pictures_are_estimated(scripted: Start, kind: str) -> None:
    backend = scripted(serving(kind, {}))
    content = [PICTURE, {"type": "text", "text": "What is this?"}]
    counting = Counting(backend.url, kind)
    (count,) = counted(counting, messages=[{"role": "user", "content": content}])
    assert is_estimate(count)
    assert count.tokens >= 500  # one picture, and not its base64 text
    assert backend.exchanges == []


def test_a_picture_inside_a_tools_result_is_a_picture_and_no_text(scripted: Start) -> None:
    backend = scripted(serving("vllm", {}))
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    call = {"type": "tool_use", "id": "t", "name": "Read", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [picture]}
    messages = [{"role": "user", "content": "look"}, {"role": "assistant", "content": [call]}]
    (count,) = counted(Counting(backend.url, "vllm"), messages=[*messages, {"role": "user", "content": [result]}])
    assert 500 <= count.tokens <= 2000


@pytest.mark.parametrize("status", [404, 405, 501])
@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_a_server_without_such_routes_is_not_asked_again(scripted: Start, kind: str, status: int) -> None:
    backend = scripted(lambda exchange: exchange.json(status, {"detail": "Not Found"}))
    counts = counted(Counting(backend.url, kind), "one", "two", "three")
    assert all(is_estimate(count) for count in counts)
    assert paths(backend) == ([TOKENIZE] if kind == "vllm" else [*PROBED, IN_ONE, RENDER])


@pytest.mark.parametrize("answer", [{"tokens": "many"}, {"count": "many"}, {"count": 0}, {"count": -5}, [], "ok"])
def test_an_answer_that_is_no_count_is_not_asked_for_again(scripted: Start, answer: Any) -> None:
    backend = scripted(lambda exchange: exchange.json(200, answer))
    counts = counted(Counting(backend.url, "vllm"), "one", "two")
    assert all(is_estimate(count) for count in counts)
    assert paths(backend) == [TOKENIZE]


def test_a_refused_prompt_says_nothing_of_the_next_but_several_do(scripted: Start) -> None:
    answers = in_order(REFUSED, REFUSED, {"count": 7}, *[REFUSED] * PATIENCE, {"count": 7})
    backend = scripted(serving("vllm", {TOKENIZE: answers}))
    prompts = [f"prompt {n}" for n in range(3 + PATIENCE + 2)]
    counts = counted(Counting(backend.url, "vllm"), *prompts)
    assert [count.is_measured for count in counts] == [False, False, True, *[False] * (PATIENCE + 2)]
    assert len(backend.turns) == 3 + PATIENCE


def test_a_server_that_could_not_count_is_asked_again_after_a_while(scripted: Start) -> None:
    backend = scripted(serving("vllm", {TOKENIZE: in_order((404, "no"), {"count": 7})}))
    counting = Counting(backend.url, "vllm")
    counting.knowledge.counts = Counts(kept_s=0.0)
    assert [count.is_measured for count in counted(counting, "one", "two")] == [False, True]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(scripted: Start, status: int) -> None:
    answers = in_order(*[(status, {"error": {"message": "Loading model"}})] * (PATIENCE + 1), {"count": 7})
    backend = scripted(serving("vllm", {TOKENIZE: answers}))
    counts = counted(Counting(backend.url, "vllm"), *[f"prompt {n}" for n in range(PATIENCE + 2)])
    assert [count.is_measured for count in counts] == [*[False] * (PATIENCE + 1), True]


@pytest.mark.parametrize("kind", ["llamacpp", "vllm"])
def test_a_server_that_went_away_is_estimated_and_not_waited_for(scripted: Start, kind: str) -> None:
    routes = llama_server() | ({TOKENIZE: always(recorded("vllm", TOKENIZE))} if kind == "vllm" else {})
    backend = scripted(serving(kind, routes))
    counting = Counting(backend.url, kind)

    async def run() -> tuple[Count, Count]:
        before = await counting.of("one")
        backend.close()
        with anyio.fail_after(RESTART_S / 2):  # a turn would wait so long for a restart
            return before, await counting.of("two")

    before, after = anyio.run(run)
    assert before.is_measured
    assert is_estimate(after)


def test_a_server_that_never_answers_is_not_waited_for(scripted: Start) -> None:
    def silent(exchange: Exchange) -> None:
        exchange.wait_until_closed()

    backend = scripted(silent)
    counting = Counting(backend.url, "vllm")
    counting.knowledge.counts = Counts(wait_s=1.0)
    assert all(is_estimate(count) for count in at_once(counting, *[f"prompt {n}" for n in range(2 * AT_ONCE)]))
    assert backend.arrived.acquire(timeout=LIMIT_S)
    assert all(exchange.was_closed.wait(LIMIT_S) for exchange in backend.turns)


def test_the_same_prompt_is_counted_once(scripted: Start) -> None:
    backend = scripted(serving("vllm", {TOKENIZE: in_order({"count": 4}, {"count": 6}, {"count": 90})}))
    counting = Counting(backend.url, "vllm")
    assert counted(counting, "one", "two", "one", "two") == measured(4, 6, 4, 6)
    assert counted(counting, "one", tools=[TOOL]) == measured(90)
    assert len(backend.turns) == 3


def test_a_count_is_not_kept_for_ever(scripted: Start) -> None:
    backend = scripted(serving("vllm", {TOKENIZE: in_order({"count": 5}, {"count": 6})}))
    counting = Counting(backend.url, "vllm")
    counting.knowledge.counts = Counts(kept_s=0.0)
    assert counted(counting, "same", "same") == measured(5, 6)


def test_what_one_server_counted_is_not_anothers_count(scripted: Start) -> None:
    one, other = (scripted(serving("vllm", {TOKENIZE: always({"count": n})})) for n in (10, 20))
    counting = Counting(one.url, "vllm")
    second = Counting(other.url, "vllm")
    second.knowledge = counting.knowledge
    assert counted(counting) + counted(second) == measured(10, 20)


def test_so_many_counts_at_once_reach_the_server_and_no_more(scripted: Start) -> None:
    all_there = threading.Barrier(AT_ONCE, timeout=LIMIT_S)
    lock, running, most = threading.Lock(), 0, 0

    def script(exchange: Exchange) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        all_there.wait()  # passes only when as many as allowed are here together
        with lock:
            running -= 1
        exchange.json(200, {"count": 3})

    counting = Counting(scripted(script).url, "vllm")
    assert at_once(counting, *[f"prompt {n}" for n in range(3 * AT_ONCE)]) == measured(*[3] * (3 * AT_ONCE))
    assert most == AT_ONCE


def test_the_same_prompt_asked_for_at_once_is_not_counted_again(scripted: Start) -> None:
    backend = scripted(serving("vllm", {TOKENIZE: always({"count": 3})}))
    assert at_once(Counting(backend.url, "vllm"), *["same"] * 30) == measured(*[3] * 30)
    assert len(backend.turns) <= AT_ONCE


def test_a_count_that_is_known_does_not_wait_behind_others(scripted: Start) -> None:
    let_go = threading.Event()

    def script(exchange: Exchange) -> None:
        if exchange.body["messages"][0]["content"] != "known":
            assert let_go.wait(LIMIT_S)
        exchange.json(200, {"count": 3})

    backend = scripted(script)
    counting = Counting(backend.url, "vllm")

    async def run() -> list[Count]:
        found = [await counting.of("known")]
        async with anyio.create_task_group() as group:
            for n in range(AT_ONCE):
                group.start_soon(counting.of, f"slow {n}")
            for _ in range(1 + AT_ONCE):
                await anyio.to_thread.run_sync(lambda: backend.arrived.acquire(timeout=LIMIT_S))
            found.append(await counting.of("known"))  # all the places are taken
            let_go.set()
        return found

    assert anyio.run(run) == measured(3, 3)


def test_a_long_prompts_tokens_are_read_to_the_last(scripted: Start) -> None:
    tokens = list(range(100_000, 400_000))
    routes = llama_server(is_older=True) | {TOKENIZE: always({"tokens": tokens})}
    backend = scripted(serving("llamacpp", routes))
    assert counted(Counting(backend.url, "llamacpp")) == measured(300_000)


def test_a_rule_of_the_template_is_learned_from_its_refusal_by_all_counts_at_once(scripted: Start) -> None:
    def alternating(body: Any) -> Any:
        """As llama-server answers where Mistral's template raises."""
        roles = [message["role"] for message in body["messages"]]
        if any(one == other for one, other in itertools.pairwise(roles)):
            return 500, {"error": {"code": 500, "message": "conversation roles must alternate user/assistant"}}
        return {"input_tokens": len(roles)}

    backend = scripted(serving("llamacpp", llama_server() | {IN_ONE: alternating}))
    counting = Counting(backend.url, "llamacpp")
    first = [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]

    async def run() -> list[Count]:
        found: list[Count] = []

        async def one(n: int) -> None:
            found.append(await counting.of(messages=[*first, {"role": "assistant", "content": f"answer {n}"}]))

        async with anyio.create_task_group() as group:
            for n in range(AT_ONCE):
                group.start_soon(one, n)
        return found

    assert anyio.run(run) == measured(*[2] * AT_ONCE)
    counted(counting, messages=[*first, {"role": "assistant", "content": "another"}])
    assert [message["content"] for message in backend.turns[-1].body["messages"]] == ["one\ntwo", "another"]


def test_what_a_template_drops_is_named_once_by_kind(scripted: Start, caplog: pytest.LogCaptureFixture) -> None:
    """This one writes neither system turns nor thinking of earlier turns, as several do."""

    def rendering(body: Any) -> Any:
        kept = [message for message in body["messages"] if message["role"] != "system"]
        last = max(n for n, message in enumerate(kept) if message["role"] == "user")
        thoughts = [message.get("reasoning_content", "") if n > last else "" for n, message in enumerate(kept)]
        words = [f"{message['content']}{message.get('tool_calls', '')}" for message in kept]
        return {"prompt": "".join([*words, *thoughts, str(body.get("tools"))])}

    backend = scripted(serving("llamacpp", llama_server() | {RENDER: rendering}))
    counted(Counting(backend.url, "llamacpp"), "marker-one", "marker-two", system="marker-system")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["the chat template of scripted leaves out: system, some thinking"]
    assert "marker" not in caplog.text
    assert paths(backend).count(RENDER) == 1
    assert "marker" not in msgspec.json.encode(backend.turns[0].body).decode()


@pytest.mark.parametrize("is_older", [False, True])
def test_a_template_that_writes_everything_is_not_complained_of(
    scripted: Start, caplog: pytest.LogCaptureFixture, is_older: bool
) -> None:
    backend = scripted(serving("llamacpp", llama_server(is_older=is_older)))
    assert counted(Counting(backend.url, "llamacpp"))[0].is_measured
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_a_template_that_could_not_be_seen_is_looked_at_again(
    scripted: Start, caplog: pytest.LogCaptureFixture
) -> None:
    counting = serving("llamacpp", llama_server() | {RENDER: always({"prompt": "<s>"})})

    def script(exchange: Exchange) -> None:
        if exchange.path == RENDER and paths(backend).count(RENDER) == 1:
            exchange.reset()
        else:
            counting(exchange)

    backend = scripted(script)
    assert counted(Counting(backend.url, "llamacpp"), "one", "two", "three") == measured(56, 56, 56)
    assert paths(backend) == [RENDER, IN_ONE, RENDER, IN_ONE, IN_ONE]
    kinds = "tool, system, preamble, text, thinking, tool_use, tool_result"
    assert caplog.messages == [f"the chat template of scripted leaves out: {kinds}"]
