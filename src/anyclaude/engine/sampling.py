"""How the next token is drawn: the request's fields, else the model's own defaults, and what it must never say."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from msgspec import Struct

from anyclaude.engine import adapter
from anyclaude.engine.adapter import Sampler
from anyclaude.wire.frames import Sampling

_MAX_BYTES = 1 << 20


class Defaults(Struct, frozen=True, kw_only=True):
    """generation_config.json, as far as it says how to sample (transformers' names). Without it: greedy."""

    temperature: float = 0.0
    top_p: float = 0.0
    top_k: int = 0
    min_p: float = 0.0
    eos_ids: tuple[int, ...] = ()


def read_defaults(folder: Path, config: dict[str, Any]) -> Defaults:
    """What cannot be read says nothing: these are recommendations, not needs."""
    found = _fields(folder / "generation_config.json")
    samples = found.get("do_sample", "temperature" in found)
    ends = [*_ids(found.get("eos_token_id")), *_ids(config.get("eos_token_id"))]
    return Defaults(
        temperature=_number(found, "temperature", 1.0) if samples else 0.0,
        top_p=_number(found, "top_p", 0.0),
        top_k=int(_number(found, "top_k", 0.0)),
        min_p=_number(found, "min_p", 0.0),
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


def _number(fields: dict[str, Any], name: str, otherwise: float) -> float:
    value = fields.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise


def _ids(value: object) -> Iterable[int]:
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, int) and not isinstance(each, bool)]


class Samplers:
    """One model's samplers: rows with the same wishes share one, and are drawn in one call."""

    def __init__(self, defaults: Defaults, masked_ids: Iterable[int]) -> None:
        self._defaults = defaults
        self._masked = mx.array(sorted(masked_ids), mx.int32)
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
        draw = adapter.sampler(temperature, top_p, top_k, min_p)
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
