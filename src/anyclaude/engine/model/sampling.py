"""How the next token is drawn: the request's fields, else the model's own defaults, and what it must never say."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from msgspec import Struct

from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import Sampler
from anyclaude.wire.frames import Sampling

_MAX_BYTES = 1 << 20
_MAX_TOKEN = 2**31 - 1
_COLDEST, _HOTTEST = 1e-4, 100.0  # colder is greedy
_NARROWEST = 1e-9  # the likeliest token, and its equals


class Defaults(Struct, frozen=True, kw_only=True):
    """generation_config.json, as far as it says how to sample (transformers' names). Without it: greedy."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    eos_ids: tuple[int, ...] = ()


def read_defaults(folder: Path, config: dict[str, Any]) -> Defaults:
    """What cannot be read says nothing: these are recommendations, not needs."""
    found = _fields(folder / "generation_config.json")
    samples = found.get("do_sample")
    if not isinstance(samples, bool):
        samples = "temperature" in found
    ends = [*_ids(found.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    return Defaults(
        temperature=_number(found, "temperature", 1.0, most=_HOTTEST) if samples else 0.0,
        top_p=_number(found, "top_p", 1.0, most=1.0),
        top_k=int(_number(found, "top_k", 0.0, most=_MAX_TOKEN)),
        min_p=_number(found, "min_p", 0.0, most=1.0),
        eos_ids=tuple(dict.fromkeys(ends)),
    )


def _fields(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        found: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _number(fields: dict[str, Any], name: str, otherwise: float, *, most: float) -> float:
    value = fields.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return otherwise
    return float(value) if 0 <= value <= most else otherwise


def _ids(value: object) -> Iterable[int]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [each for each in values if type(each) is int and 0 <= each <= _MAX_TOKEN]


class Samplers:
    """One model's samplers: rows with the same wishes share one, and are drawn in one call. `n_logits` is how many
    tokens can come next."""

    def __init__(self, defaults: Defaults, masked_ids: Iterable[int], n_logits: int) -> None:
        self._defaults = defaults
        self._n_logits = n_logits
        self._masked = mx.array(sorted(each for each in masked_ids if each < n_logits), mx.int32)
        self._make = lru_cache(maxsize=64)(self._made)

    def of(self, wanted: Sampling) -> Sampler:
        own = self._defaults
        return self._make(
            own.temperature if wanted.temperature is None else wanted.temperature,
            own.top_p if wanted.top_p is None else wanted.top_p,
            own.top_k if wanted.top_k is None else wanted.top_k,
            own.min_p,
        )

    def _made(self, temperature: float, top_p: float, top_k: int, min_p: float) -> Sampler:
        """Whatever a request says is made something that mlx-lm takes: what it refuses would end every row."""
        draw = adapter.sampler(
            min(temperature, _HOTTEST) if temperature > _COLDEST else 0.0,
            max(top_p, _NARROWEST) if top_p < 1.0 else 1.0,
            top_k if 0 < top_k < self._n_logits else 0,
            min_p,
        )
        if self._masked.size == 0:
            return draw
        masked = self._masked

        def sample(logprobs: mx.array) -> mx.array:
            """Role markers come from the template only: a model that writes one would speak for somebody else."""
            return draw(
                mx.put_along_axis(logprobs, mx.broadcast_to(masked, (logprobs.shape[0], masked.size)), _NEVER, -1)
            )

        return sample


_NEVER = mx.array(-float("inf"))
