"""Everything that is used of mlx-lm (0.32): its names move between minor versions, so they stand in this file only.

What comes out is typed by the protocols below, which say what the rest of the engine relies on. Loading runs no code of
the model folder.
"""

import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import mlx.core as mx
from mlx_lm.generate import GenerationBatch, StopSequences, TextStateMachine  # pyright: ignore[reportMissingTypeStubs]
from mlx_lm.models import cache as mlx_cache  # pyright: ignore[reportMissingTypeStubs]
from mlx_lm.sample_utils import make_sampler  # pyright: ignore[reportMissingTypeStubs]
from mlx_lm.tokenizer_utils import _infer_tool_parser  # pyright: ignore
from mlx_lm.utils import load_model, maybe_set_recommended_wired_limit  # pyright: ignore

from anyclaude.errors import ModelRefused

Sampler = Callable[[mx.array], mx.array]
LogitsProcessor = Callable[[mx.array, mx.array], mx.array]


class LayerCache(Protocol):
    """One layer's state: KVCache, RotatingKVCache, ArraysCache, or their batched forms."""

    state: Any

    @property
    def nbytes(self) -> int: ...


class KeyValueCache(LayerCache, Protocol):
    """keys and values [1, heads, capacity, width]; the first `offset` positions are filled."""

    keys: mx.array | None
    values: mx.array | None
    offset: int


class Model(Protocol):
    """Token ids [rows, n] to logits [rows, n, vocabulary]."""

    def __call__(self, tokens: mx.array, *, cache: Sequence[LayerCache]) -> mx.array: ...

    def parameters(self) -> Any: ...


class ToolParser(Protocol):
    """How a family of models writes calls. `close` may be empty: then a call ends with the answer."""

    open: str
    close: str

    def parse(self, text: str, tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]: ...


def versions() -> tuple[str, str]:
    """Of MLX and mlx-lm."""
    return importlib.metadata.version("mlx"), importlib.metadata.version("mlx-lm")


def load(folder: Path) -> tuple[Model, dict[str, Any]]:
    """Weights and config.json. Raises ModelRefused for what mlx-lm cannot load."""
    try:
        model, config = load_model(folder, lazy=False, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RuntimeError) as error:
        raise ModelRefused(f"mlx-lm cannot load {folder}: {_first_line(error)}") from error
    model.eval()
    maybe_set_recommended_wired_limit()
    return cast("Model", model), cast("dict[str, Any]", config)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def random_model(n_vocabulary: int = 512) -> Model:
    """A small model with random weights, for the self test: no file is needed."""
    module = importlib.import_module("mlx_lm.models.qwen3")
    arguments = module.ModelArgs(
        model_type="qwen3", hidden_size=128, num_hidden_layers=2, intermediate_size=256, num_attention_heads=4,
        rms_norm_eps=1e-6, vocab_size=n_vocabulary, num_key_value_heads=2, max_position_embeddings=65_536,
        rope_theta=1e6, head_dim=64, tie_word_embeddings=False,
    )  # fmt: skip
    model = module.Model(arguments)
    mx.eval(model.parameters())
    return cast("Model", model)


def new_caches(model: Model) -> list[LayerCache]:
    return cast("list[LayerCache]", mlx_cache.make_prompt_cache(cast("Any", model)))


def first_step(model: Model) -> tuple[list[LayerCache], int]:
    """The state after one token, and the width of the logits."""
    caches = new_caches(model)
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits, [cache.state for cache in caches])
    return caches, logits.shape[-1]


def is_cuttable(cache: LayerCache) -> bool:
    """Whether any prefix of its positions is the state at that prefix."""
    return type(cache) is mlx_cache.KVCache


def is_batched(cache: LayerCache) -> bool:
    return type(cache) is mlx_cache.BatchKVCache


def filled_cache(keys: mx.array, values: mx.array, offset: int) -> LayerCache:
    """A KVCache whose first `offset` positions are filled; the rest of the arrays is room."""
    cache = mlx_cache.KVCache()
    cache.keys, cache.values, cache.offset = keys, values, offset  # pyright: ignore
    return cast("LayerCache", cache)


def batched_row(cache: Any, row: int) -> tuple[mx.array, mx.array, int]:
    """Keys and values [1, heads, capacity, width] of one row of a batched KVCache, and where its positions begin."""
    return cache.keys[row : row + 1], cache.values[row : row + 1], int(cache.left_padding[row].item())


def joined(rows: Sequence[Sequence[LayerCache]]) -> list[LayerCache]:
    """Rows of their own as one batch, padded on the left to the longest."""
    return [layer[0].merge(list(layer)) for layer in zip(*rows, strict=True)]  # pyright: ignore


def can_join(caches: Sequence[LayerCache]) -> bool:
    """Whether rows with such caches can be made a batch. mlx-lm has no batched form of chunked or quantized ones."""
    return all(
        can_join(cache.caches) if isinstance(cache, mlx_cache.CacheList) else type(cache) in (*_OWN, *_EITHER)
        for cache in cast("Sequence[Any]", caches)
    )


def row_of(caches: Sequence[LayerCache], row: int) -> list[LayerCache]:
    """One row of a batch as a state of its own; what is one already stays as it is."""
    return [_row_of(cache, row) for cache in caches]


def _row_of(cache: Any, row: int) -> Any:
    if isinstance(cache, mlx_cache.CacheList):
        return mlx_cache.CacheList(*(_row_of(each, row) for each in cast("Any", cache).caches))
    if isinstance(cache, mlx_cache.RotatingKVCache):
        return _within_window(cache)
    is_own = cache.batch_size == 1 if isinstance(cache, mlx_cache.ArraysCache) else not hasattr(cache, "extract")
    return cache if is_own else cache.extract(row)


def _within_window(cache: Any) -> Any:
    """After a chunk a sliding window still holds all of the chunk: what the next token drops is left out."""
    excess = 0 if cache.keys is None else cache.keys.shape[2] - cache.max_size
    if excess <= 0:
        return cache
    kept = mlx_cache.RotatingKVCache(cache.max_size, cache.keep)
    keys, values = (cache._trim(excess, each) for each in (cache.keys, cache.values))
    kept.state = keys, values, cache.offset, cache.keep, cache.max_size, cache.max_size
    return kept


def sampler(temperature: float, top_p: float, top_k: int, min_p: float) -> Sampler:
    return make_sampler(temp=temperature, top_p=top_p, top_k=top_k, min_p=min_p)


class Live:
    """Rows that generate together, one token a step. They never end by themselves: whoever steps decides.

    A single row may keep its own caches; `add` makes them a batch.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._batch: Any = None

    def __len__(self) -> int:
        return len(self._batch.uids) if self._batch is not None else 0

    @property
    def uids(self) -> list[int]:
        return list(self._batch.uids) if self._batch is not None else []

    @property
    def caches(self) -> list[LayerCache]:
        return self._batch.prompt_cache

    def add(
        self,
        uid: int,
        last_token: int,
        caches: list[LayerCache],
        sampler: Sampler,
        processors: Sequence[LogitsProcessor],
    ) -> None:
        """`last_token` is read first. `processors` are shown it and what is written after it, not the whole prompt."""
        row = GenerationBatch(
            cast("Any", self._model), [uid], mx.array([last_token]), cast("Any", caches), [[]], [sampler], sampler,
            [list(processors)], [StopSequences()], [1 << 60],
        )  # fmt: skip
        if not len(self):
            self._batch = row
            return
        for batch in (self._batch, row):
            batch.prompt_cache = [_as_batch(cache) for cache in batch.prompt_cache]
        self._batch.extend(row)

    def step(self) -> list[tuple[int, int]]:
        """(uid, token) of each row; the token is in the row's state by then."""
        return [(answer.uid, answer.token) for answer in self._batch.next()]

    def remove(self, uid: int) -> None:
        if len(self) == 1:
            assert self.uids == [uid]
            self._batch = None
        else:
            self._batch.filter([n for n, other in enumerate(self._batch.uids) if other != uid])


_OWN = (mlx_cache.KVCache, mlx_cache.RotatingKVCache)
_EITHER = (mlx_cache.ArraysCache,)  # its own batched form


def _as_batch(cache: Any) -> Any:
    if isinstance(cache, mlx_cache.CacheList):
        return mlx_cache.CacheList(*(_as_batch(each) for each in cast("Any", cache).caches))
    return cache.merge([cache]) if type(cache) in _OWN else cache


class Segments:
    """Text in pieces to (state, text), with the markers that lead from one state to another taken out.

    `transitions` maps a state to its markers and where they lead. Text that may still become a marker is held back.
    """

    def __init__(self, transitions: dict[str, list[tuple[str, str]]], initial: str) -> None:
        self._state: Any = TextStateMachine(cast("Any", transitions)).make_state(initial)

    def feed(self, text: str) -> list[tuple[str, str]]:
        self._state, segments = TextStateMachine.split(self._state, text)
        return cast("list[tuple[str, str]]", segments)

    def finish(self) -> tuple[str, str]:
        """What was held back."""
        self._state, text, name = TextStateMachine.flush(self._state)
        return cast("str", name), cast("str", text)


class _Named:
    """What mlx-lm looks at when it chooses a parser."""

    def __init__(self, template: str, vocabulary: dict[str, int]) -> None:
        self.chat_template = template
        self._vocabulary = vocabulary

    def get_vocab(self) -> dict[str, int]:
        return self._vocabulary


class _Parser:
    def __init__(self, module: Any) -> None:
        self.open: str = module.tool_call_start
        self.close: str = module.tool_call_end or ""
        self._parse = module.parse_tool_call

    def parse(self, text: str, tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Name and arguments of each call. Raises ValueError for what cannot be read."""
        try:
            found = self._parse(text, list(tools))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, SyntaxError, RecursionError) as error:
            raise ValueError(f"not a tool call: {type(error).__name__}") from None
        calls = cast("list[Any]", found if isinstance(found, list) else [found])
        if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
            raise ValueError("not a tool call: no name")
        return cast("list[dict[str, Any]]", calls)


def tool_parser(template: str, vocabulary: dict[str, int]) -> ToolParser | None:
    """As mlx-lm chooses it, by the chat template and the vocabulary; None where the model calls no tools."""
    name = _infer_tool_parser(_Named(template, vocabulary))
    return _Parser(importlib.import_module(f"mlx_lm.tool_parsers.{name}")) if name else None
