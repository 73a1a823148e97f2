"""Answers that follow a schema by construction: weights are random, so they mean nothing, and yet are valid."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tokenizers import Tokenizer

from anyclaude.engine.generation.grammar import Constraint, Grammars
from anyclaude.engine.generation.row import Row
from anyclaude.engine.model.models import ResidentModel, Wanted
from anyclaude.engine.model.sampling import read_defaults
from anyclaude.wire.frames import Sampling
from tests.support.models import random_model
from tests.support.rows import Bench, some_ids
from tests.support.stepping import alone, untimed

N_OUT = 300
FLAT: dict[str, Any] = {
    "type": "object",
    "properties": {"done": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["done", "n"],
    "additionalProperties": False,
}
NESTED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["red", "green", "blue"]},
        "inner": {
            "type": "object",
            "properties": {"flags": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}},
            "required": ["flags"],
            "additionalProperties": False,
        },
        "name": {"type": "string", "maxLength": 8},
    },
    "required": ["kind", "inner", "name"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("models") / "model", "qwen3")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def model(folder: Path) -> ResidentModel:
    defaults = read_defaults(folder, {})
    return Bench().models.get(Wanted(folder, b"grammar", frozenset(), defaults, 0), frozenset())


@pytest.fixture(scope="module")
def grammars(folder: Path, model: ResidentModel) -> Grammars:
    return Grammars(folder, model.defaults.eos_ids)


def held(bench: Bench, model: ResidentModel, constraint: Constraint, *, seed: int = 0, n_out: int = N_OUT) -> Row:
    row = bench.row(model, some_ids(40, seed), n_out)
    row.processors = (constraint,)
    bench.scheduler.submit(row)
    return row


def text(tokenizer: Tokenizer, row: Row) -> str:
    *tokens, last = row.generated
    assert last in row.model.defaults.eos_ids
    return tokenizer.decode(tokens, skip_special_tokens=False)


def assert_flat(answer: Any) -> None:
    assert list(answer) == ["done", "n"]
    assert isinstance(answer["done"], bool)
    assert 0 <= answer["n"] <= 99


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_follows_its_schema_and_then_ends(
    model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer, seed: int
) -> None:
    bench = untimed()
    row = held(bench, model, Constraint(grammars.of_schema(FLAT), None), seed=seed)
    bench.finish()
    assert_flat(json.loads(text(tokenizer, row)))


def test_a_nested_schema_with_choices_and_lengths_is_followed(
    model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    bench = untimed()
    row = held(bench, model, Constraint(grammars.of_schema(NESTED), None))
    row.sampler = model.samplers.of(Sampling(temperature=1.0))
    bench.finish()
    answer = json.loads(text(tokenizer, row))
    assert list(answer) == ["kind", "inner", "name"]
    assert answer["kind"] in ("red", "green", "blue")
    assert len(answer["inner"]["flags"]) in (2, 3)
    assert {type(flag) for flag in answer["inner"]["flags"]} == {bool}
    assert len(answer["name"]) <= 8


class Heard:
    """A greedy sampler that keeps what it was shown, to the bit."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def __call__(self, logprobs: mx.array) -> mx.array:
        self.seen.append(bytes(memoryview(logprobs)))  # pyright: ignore[reportArgumentType]
        return mx.argmax(logprobs, axis=-1)


def test_a_free_row_beside_a_held_one_hears_the_same_to_the_bit(
    model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    """Beside another row that is free, and beside one that a grammar holds."""
    heard: list[list[bytes]] = []
    for is_held in (False, True):
        bench = untimed()
        free = bench.row(model, some_ids(50, 9), 12)
        free.sampler = Heard()
        bench.scheduler.submit(free)
        if is_held:
            other = held(bench, model, Constraint(grammars.of_schema(FLAT), None))
        else:
            other = bench.submit(model, some_ids(40), 20)
        bench.finish()
        assert bench.copied.joined
        assert free.generated == alone(model, some_ids(50, 9), 12)
        heard.append(free.sampler.seen)
        if is_held:
            assert_flat(json.loads(text(tokenizer, other)))
    assert heard[0] == heard[1]


def test_two_rows_follow_each_its_own_schema(model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer) -> None:
    bench = untimed()
    rows = [
        held(bench, model, Constraint(grammars.of_schema({"enum": [word]}), None), seed=seed)
        for seed, word in enumerate(("alpha", "omega"))
    ]
    bench.finish()
    assert [json.loads(text(tokenizer, row)) for row in rows] == ["alpha", "omega"]


def test_before_the_token_that_it_waits_for_an_answer_is_free(
    model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    free = alone(model, some_ids(40), 20)
    after = free[6]
    assert after not in free[:6]
    bench = untimed()
    row = held(bench, model, Constraint(grammars.of_schema(FLAT), after))
    bench.finish()
    assert row.generated[:7] == free[:7]
    row.generated = row.generated[7:]
    assert_flat(json.loads(text(tokenizer, row)))


def test_a_token_that_never_comes_leaves_an_answer_free(model: ResidentModel, grammars: Grammars) -> None:
    bench = untimed()
    row = held(bench, model, Constraint(grammars.of_schema(FLAT), 2_040), n_out=20)
    bench.finish()
    assert row.generated == alone(model, some_ids(40), 20)


def test_what_of_a_schema_cannot_be_expressed_is_left_open(
    model: ResidentModel, grammars: Grammars, tokenizer: Tokenizer
) -> None:
    odd = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    bench = untimed()
    row = held(bench, model, Constraint(grammars.of_schema(odd | {"not": {"required": ["x"]}}), None))
    bench.finish()
    assert json.loads(text(tokenizer, row)) in ({"n": 1}, {"n": 2})


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"}, {"type": 12}, {"properties": []}, {"type": "object", "properties": {"a": 3}},
        {"$ref": "#/$defs/none"}, {"type": "string", "pattern": "("}, {"enum": []}, {"type": "integer", "minimum": "a"},
        {"type": "array", "minItems": 3, "maxItems": 2},
    ],
)  # fmt: skip
def test_what_is_no_schema_is_a_value_error_of_one_line(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w") as caught:
        grammars.of_schema(schema)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("depth", [300, 1_000])
def test_a_schema_that_is_too_deep_is_a_value_error(grammars: Grammars, depth: int) -> None:
    schema: dict[str, Any] = {"type": "boolean"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
    with pytest.raises(ValueError, match=r"\w"):
        grammars.of_schema(schema)
