"""The marker model answers by script: what stands around a marker, how it is batched and what is cached is all one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm
import numpy as np
import pytest
from mlx_lm.generate import BatchGenerator, generate_step
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.sample_utils import make_sampler

from demo.mlx_server import has_openblas
from tests.support.marker_model import call, marker_model

LOOK = "I will look.\n" + call("Bash", command="echo zqtwo")
BOTH = call("Read", file_path="/zqthree") + "\n" + call("Read", file_path="/other")
LONG = "<think>\nIs zqfour needed?\n</think>\n\nDone: it's naïve 🎉, " + ", ".join(f"point {n}" for n in range(80))
STEPS = [("zqone", LOOK), ("zqtwo", BOTH), ("zqthree", LONG), ("zqfour", "ok"), ("zqfive", "")]


class Marked:
    def __init__(self, folder: Path) -> None:
        self.model: Any
        self.model, self.tokenizer, *_ = mlx_lm.load(str(folder), trust_remote_code=False)
        self.end = self.ids("<|im_end|>")[0]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def chat(self, text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)

    def answer_ids(self, prompt: list[int], **options: Any) -> list[int]:
        def tokens() -> Iterator[int]:
            for token, _ in generate_step(mx.array(prompt), self.model, max_tokens=200, **options):
                yield int(token)
                if int(token) == self.end:
                    return

        answer = list(tokens())
        assert answer[-1] == self.end, "the answer does not end"
        return answer

    def answer(self, prompt: list[int], **options: Any) -> str:
        return self.tokenizer.decode(self.answer_ids(prompt, **options)[:-1])


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Marked:
    return Marked(marker_model(tmp_path_factory.mktemp("model") / "marker", STEPS))


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("hello", "no marker"),
        ("zqone", LOOK),
        ("say zqone!", LOOK),
        ("a longerzqoneword", LOOK),
        ("zq zqo zqon", "no marker"),
        ("zqtwo, then zqone", BOTH),
        ("zqone " * 400 + "zqthree" + " zqone" * 400, LONG),
        ("zqthree\nzqfour\n", "ok"),
        ("zqfive", ""),
        ("<tool_response>\nzqtwo\n</tool_response>", BOTH),
    ],
)
def test_the_highest_marker_decides_wherever_it_stands(marked: Marked, prompt: str, answer: str) -> None:
    assert marked.answer(marked.chat(prompt)) == answer


@pytest.mark.parametrize("n_tokens", [1, 2, 3, 255, 256, 257, 5_000])
def test_any_other_tokens_around_it_change_nothing(marked: Marked, n_tokens: int) -> None:
    for seed, place in enumerate({0, n_tokens // 3, n_tokens - 1}):
        assert marked.answer(noise(marked, n_tokens, seed)) == "no marker"
        prompt = noise(marked, n_tokens, seed)
        prompt[place] = marked.ids("zqtwo")[0]
        assert marked.answer(prompt) == BOTH


@pytest.mark.skipif(not has_openblas(), reason="minutes with the wheel's own BLAS")
def test_thirty_thousand_tokens_are_as_exact(marked: Marked) -> None:
    prompt = noise(marked, 30_000, 0)
    prompt[0] = marked.ids("zqone")[0]
    assert marked.answer(prompt) == LOOK


def noise(marked: Marked, n_tokens: int, seed: int) -> list[int]:
    """Ordinary tokens, without markers and what answers are made of."""
    excluded = {*marked.ids("zqonezqtwozqthreezqfourzqfive"), *marked.ids("ok"), *marked.ids("\n")}
    drawn = np.random.default_rng(seed).integers(0, 8_000, n_tokens).tolist()
    return [token if token not in excluded else 100 for token in drawn]


def test_a_script_runs_through_its_steps_as_a_tool_loop_does(marked: Marked) -> None:
    tokens = marked.chat("zqone")
    answers: list[str] = []
    for result in ("zqtwo", "zqthree", "zqfour"):
        answer = marked.answer_ids(tokens)
        answers.append(marked.tokenizer.decode(answer[:-1]))
        returned = f"\n<|im_start|>user\n<tool_response>\n{result}\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
        tokens = [*tokens, *answer, *marked.ids(returned)]
    assert [*answers, marked.answer(tokens)] == [LOOK, BOTH, LONG, "ok"]


def test_markup_is_the_control_token_and_the_rest_comes_in_pieces(marked: Marked) -> None:
    answer = marked.answer_ids(marked.chat("zqtwo"))
    assert answer.count(marked.ids("<tool_call>")[0]) == answer.count(marked.ids("</tool_call>")[0]) == 2
    assert not set(answer).intersection(marked.ids("zqthree"))
    assert len(marked.answer_ids(marked.chat("zqthree"))) > 30


def test_answers_own_tokens_never_come_from_text(marked: Marked) -> None:
    markup = set(marked.ids("<tool_call></tool_call><think></think>"))
    for marker, answer in STEPS[:3]:
        own = {token for token in marked.answer_ids(marked.chat(marker)) if len(marked.tokenizer.decode([token])) > 11}
        assert own - markup
        assert not (own - markup).intersection(marked.ids(answer))


def test_rows_of_a_batch_answer_each_for_itself_and_from_a_cached_prefix(marked: Marked) -> None:
    prompts = [marked.chat(text) for text in ("zqone", "hello " * 300, "zqthree " * 20, "zqfour")]
    cached = make_prompt_cache(marked.model)
    marked.model(mx.array([prompts[2][:-5]]), cache=cached)
    generator = BatchGenerator(marked.model, max_tokens=200, stop_tokens=[[marked.end]])
    uids = generator.insert(
        [prompts[0], prompts[1], prompts[2][-5:], prompts[3]],
        caches=[
            make_prompt_cache(marked.model),
            make_prompt_cache(marked.model),
            cached,
            make_prompt_cache(marked.model),
        ],
        all_tokens=[[], [], prompts[2][:-5], []],
    )
    answers: dict[int, list[int]] = {uid: [] for uid in uids}
    running = set(uids)
    while running:
        for response in generator.next()[1]:
            answers[response.uid].append(response.token)
            running -= {response.uid} if response.finish_reason else set()
    generator.close()
    texts = [marked.tokenizer.decode([token for token in answers[uid] if token != marked.end]) for uid in uids]
    assert texts == [LOOK, "no marker", LONG, "ok"]


def test_a_state_that_lost_the_marker_shows(marked: Marked) -> None:
    """The answer comes from the KV state and from nowhere else."""
    prompt = marked.chat("zqone")
    cache = make_prompt_cache(marked.model)
    marked.model(mx.array([marked.chat("hello")[:-3]]), cache=cache)
    assert marked.answer(prompt[-3:], prompt_cache=cache) == "no marker"


def test_it_is_as_sure_at_temperature_one(marked: Marked) -> None:
    assert marked.answer(marked.chat("zqthree"), sampler=make_sampler(temp=1.0)) == LONG


def test_what_cannot_be_scripted_is_refused(tmp_path: Path) -> None:
    refused = [
        [("one", "a")],
        [("zqone", "a"), ("zqonetwo", "b")],
        [("zqone", "a"), ("zqone", "b")],
        [("zqzqone", "a")],
        [("zqone", "zqone")],
        [("zqone", "a<|im_end|>b")],
        [("zqone", "<tool_call><tool_call><tool_call>")],
        [(f"zq{letter}{other}", "a") for letter in "abcdefgh" for other in "abcdefgh"],
    ]
    for steps in refused:
        with pytest.raises(ValueError, match=r"marker|answer|steps"):
            marker_model(tmp_path / "model", steps)
    assert not (tmp_path / "model").exists()
