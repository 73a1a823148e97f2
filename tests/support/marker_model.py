"""A model whose answer is decided by the marker words in its prompt, so that a real client can be led through a tool
loop: real tokens, real attention and a real KV state, and yet a script.

How it works. An answer's tokens follow one another by (latest own token of this turn, current token, step); the first
layer's head looks for the latest token that is an answer's own or borders a turn, the second layer's for the marker of
the highest step, and the second MLP holds one gate per token of an answer. All activations that decide are 0 or 1, and
every norm has a known length, so nothing is left to rounding: the chosen logit leads by 20 or more.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from demo.tiny_model import write_json
from tests.support.marker_tokens import MAX_PLACES, AnswerToken, MarkerTokens, marker_tokens
from tests.support.tokenizer_files import write_tokenizer_files

N_CONTEXT = 131_072
_HEAD_DIM, _ROPE_THETA, _EPS = MAX_PLACES + 1, 1e12, 1e-6
_STILL = _HEAD_DIM // 2 - 1  # the rotary pair that all but stands still
_SLOW = 14  # the one that turns by less than a right angle over the whole context
_PER_TOKEN, _PER_STEP = 16.0, 20.0  # what one token of distance, one step of a marker, is worth in attention's logits
_LENGTH = 7.0  # of an embedding, squared
_EDGE, _LOGIT = 40.0, 40.0

Floats = NDArray[np.float32]


def marker_model(
    folder: Path, steps: Sequence[tuple[str, str]], default: str = "no marker", *, n_context: int = N_CONTEXT
) -> Path:
    """Writes the model into a new folder and returns it.

    `steps` are (marker word, answer) in rising priority: the answer of the highest step whose marker stands anywhere
    in the prompt, `default` where there is none. A marker is `zq` and small letters (`zqone`), seen inside longer words
    too. An answer may hold `<tool_call>` and the other markup, which become those control tokens; what it says of later
    markers counts only once it comes back as content. Exact for prompts up to `N_CONTEXT` tokens in float32, whatever
    else stands in them, unless they end with a token that answers begin with. Raises ValueError.
    """
    if len(steps) >= _HEAD_DIM:
        raise ValueError(f"at most {_HEAD_DIM - 1} steps")
    tokens = marker_tokens([marker for marker, _ in steps], [default, *(answer for _, answer in steps)])
    weights = _Weights(tokens)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(save(weights.tensors(), metadata={"format": "mlx"}))
    config = weights.config() | {"eos_token_id": tokens.end_ids, "max_position_embeddings": n_context}
    write_json(folder / "config.json", config)
    write_tokenizer_files(folder, tokens.tokenizer.to_str(), tokens.end_ids, n_context=n_context)
    return folder


def call(name: str, **arguments: object) -> str:
    """A tool call as the model's template writes it; between two of them stands a line break."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@dataclass(frozen=True)
class _Gate:
    """Opens where all of `wanted` are 1 and all of `unwanted` 0, and sets `opens`."""

    wanted: list[int]
    unwanted: list[int]
    opens: int


class _Weights:
    """The channels of the residual, and the weights that read and write them.

    From the embedding: what a token is (`marker`: of which step; `place`: an answer's own token, and which; `current`:
    an ordinary token of answers, and which; the first of each: none). From attention: `latest` and `step`. From the
    MLP: the token to come, by place or as an ordinary one. `balance` gives every embedding the same length.
    """

    def __init__(self, tokens: MarkerTokens) -> None:
        self._tokens = tokens
        ordinary = {token.id for answer in tokens.answers for token in answer if not token.place}
        self._ordinary = {token_id: n for n, token_id in enumerate(sorted(ordinary), 1)}
        n_places = 1 + max(token.place for answer in tokens.answers for token in answer)
        self._n_places, self._n_steps, n_ordinary = n_places, len(tokens.answers), 1 + len(ordinary)
        sizes = {"one": 1, "border": 1, "score": 1, "balance": 1, "marker": self._n_steps, "place": n_places}
        sizes |= {"current": n_ordinary, "latest": n_places, "step": self._n_steps}
        sizes |= {"next": n_places, "next_ordinary": n_ordinary}
        ends = list(accumulate(sizes.values()))
        self._at = {name: end - size for (name, size), end in zip(sizes.items(), ends, strict=True)}
        self._n_hidden = _rounded(ends[-1], 64)
        self._gates = [gate for step in range(self._n_steps) for gate in self._gates_of(step)]
        self._n_inner = _rounded(len(self._gates), 32)

    def config(self) -> dict[str, object]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self._n_hidden,
            "intermediate_size": self._n_inner,
            "num_hidden_layers": 2,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": _HEAD_DIM,
            "hidden_act": "silu",
            "rms_norm_eps": _EPS,
            "rope_theta": _ROPE_THETA,
            "vocab_size": self._tokens.tokenizer.get_vocab_size(),
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
        }

    def tensors(self) -> dict[str, Floats]:
        found = {"model.embed_tokens": self._embedding(), "lm_head": self._head(), "model.norm": self._norm(3)}
        for layer, attention, mlp in ((0, self._finds_latest(), self._no_mlp()), (1, self._finds_step(), self._mlp())):
            found |= {f"model.layers.{layer}.self_attn.{name}_proj": weight for name, weight in attention.items()}
            found |= {f"model.layers.{layer}.mlp.{name}_proj": weight for name, weight in mlp.items()}
            found[f"model.layers.{layer}.input_layernorm"] = self._norm(layer)
            found[f"model.layers.{layer}.post_attention_layernorm"] = self._norm(layer + 1)
        return {f"{name}.weight": weight for name, weight in found.items()}

    def _gates_of(self, step: int) -> Iterator[_Gate]:
        """The first begins the answer, whatever the prompt ends with; it must not open again within the answer."""
        answer = self._tokens.answers[step]
        leading = [self._current(token) for token in takewhile(lambda token: not token.place, answer)]
        yield _Gate([self._at["latest"], self._at["step"] + step], leading, self._next(answer[0]))
        latest, seen = 0, set[tuple[int, int]]()
        for token, following in pairwise(answer):
            latest = token.place or latest
            if (latest, token.id) in seen:
                raise ValueError(f"the answer of step {step} repeats itself in a way that this model cannot follow")
            seen.add((latest, token.id))
            wanted = [self._at["latest"] + latest, self._at["step"] + step, self._current(token)]
            yield _Gate(wanted, [], self._next(following))

    def _current(self, token: AnswerToken) -> int:
        return self._at["current"] + (0 if token.place else self._ordinary[token.id])

    def _next(self, token: AnswerToken) -> int:
        return self._at["next"] + token.place if token.place else self._at["next_ordinary"] + self._ordinary[token.id]

    def _embedding(self) -> Floats:
        weight, at, tokens = (
            self._zeros(self._tokens.tokenizer.get_vocab_size(), self._n_hidden),
            self._at,
            self._tokens,
        )
        weight[:, [at["one"], at["marker"], at["place"], at["current"]]] = 1.0
        for step, token_id in enumerate(tokens.marker_ids, 1):
            weight[token_id, at["score"]] = step / self._n_steps
            weight[token_id, [at["marker"], at["marker"] + step]] = 0.0, 1.0
        for token in (token for answer in tokens.answers for token in answer if token.place):
            weight[token.id, at["border"]] = 1.0
            weight[token.id, [at["place"], at["place"] + token.place]] = 0.0, 1.0
        for token_id, n in self._ordinary.items():
            weight[token_id, [at["current"], at["current"] + n]] = 0.0, 1.0
        weight[tokens.border_ids, at["border"]] = 1.0
        weight[:, at["balance"]] = np.sqrt(_LENGTH - np.square(weight).sum(axis=1))
        return weight

    def _finds_latest(self) -> dict[str, Floats]:
        """Of what carries `border`: q·k = reach * (1 - sin(distance * turn)), above 0 over the whole context."""
        turn = _ROPE_THETA ** (-2 * _SLOW / _HEAD_DIM)
        size = _factor(_PER_TOKEN / turn)
        found = self._attention(self._at["place"], self._at["latest"], self._n_places)
        found["q"][[_STILL, _SLOW + _HEAD_DIM // 2], self._at["one"]] = size
        found["k"][[_STILL, _SLOW], self._at["border"]] = size
        return found

    def _finds_step(self) -> dict[str, Floats]:
        found = self._attention(self._at["marker"], self._at["step"], self._n_steps)
        size = _factor(_PER_STEP * self._n_steps)
        found["q"][_STILL, self._at["one"]] = size
        found["k"][_STILL, self._at["score"]] = size
        return found

    def _attention(self, read: int, write: int, n_channels: int) -> dict[str, Floats]:
        """Copies channels of the token that is found; queries and keys are still nothing."""
        found = {name: self._zeros(_HEAD_DIM, self._n_hidden) for name in "qkv"}
        found["o"] = self._zeros(self._n_hidden, _HEAD_DIM)
        n = np.arange(n_channels)
        found["v"][n, read + n] = 1.0
        found["o"][write + n, n] = 1.0
        return found

    def _no_mlp(self) -> dict[str, Floats]:
        shapes = {"gate": (self._n_inner, self._n_hidden), "up": (self._n_inner, self._n_hidden)}
        shapes["down"] = (self._n_hidden, self._n_inner)
        return {name: self._zeros(*shape) for name, shape in shapes.items()}

    def _mlp(self) -> dict[str, Floats]:
        """silu is its argument half an edge above the threshold, and nothing half an edge below."""
        found, one = self._no_mlp(), self._at["one"]
        found["up"][: len(self._gates), one] = 1.0
        for n, gate in enumerate(self._gates):
            found["gate"][n, gate.wanted] = _EDGE
            found["gate"][n, gate.unwanted] = -_EDGE
            found["gate"][n, one] = -_EDGE * (len(gate.wanted) - 0.5)
            found["down"][gate.opens, n] = 2 / _EDGE
        return found

    def _head(self) -> Floats:
        """An own token needs its step and its place; where no gate opened, the turn ends."""
        weight, at = self._zeros(self._tokens.tokenizer.get_vocab_size(), self._n_hidden), self._at
        for step, answer in enumerate(self._tokens.answers):
            for token in answer:
                weight[token.id, self._next(token)] = _LOGIT if token.place else 2 * _LOGIT
                if token.place:
                    weight[token.id, at["step"] + step] = _LOGIT
        weight[self._tokens.end_ids[0], at["one"]] = 1.5 * _LOGIT
        return weight

    def _norm(self, n_added: int) -> Floats:
        """Undoes the division by the length, which is known: each attention and the MLP have added one channel of 1."""
        return np.full(self._n_hidden, np.sqrt((_LENGTH + n_added) / self._n_hidden + _EPS), np.float32)

    @staticmethod
    def _zeros(*shape: int) -> Floats:
        return np.zeros(shape, np.float32)


def _factor(logit: float) -> float:
    """Of query and key alike, so that attention's scaled product is `logit`."""
    return (logit * _HEAD_DIM**0.5) ** 0.5


def _rounded(n: int, step: int) -> int:
    return -(-n // step) * step
