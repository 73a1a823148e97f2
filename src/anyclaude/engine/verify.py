"""`anyclaude cache verify`: every file, then the answers with the cache and without it.

Of each model that is loaded, the beginning of what was used last is read afresh by the model, and what is stored of it
compared: the state itself, and what the model says next. Whatever is snapshot and not blocks is compared by what the
model says next only, and where one lies in that beginning. Bounded: something else may run after each step.
"""

from collections.abc import Iterable, Iterator
from sys import float_info
from typing import Any, cast

import mlx.core as mx
import msgspec
from msgspec import Struct

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.hit import Hit
from anyclaude.engine.cache.seam import Ids
from anyclaude.engine.model import adapter
from anyclaude.engine.model.adapter import LayerCache, Model
from anyclaude.engine.model.models import ResidentModel
from anyclaude.engine.model.state import StatePayload, number

MOST_TOKENS = 512
# Of the largest value of the same kind. State that was computed in other chunks, or beside other rows, is rounded
# otherwise: float32 by some millionths; 16-bit types keep 8 to 11 bits, and each layer adds to what was lost before.
TOLERANCES: dict[mx.Dtype, float] = {mx.float32: 1e-3, mx.float16: 0.1, mx.bfloat16: 0.1}


class Parity(Struct, frozen=True):
    """Of the first `tokens` of what this model was used for last; 0: nothing is kept of it. `largest_difference` is of
    values, `largest_share` of the largest value of the same kind: `holds` says that it is within `tolerance`."""

    model: str
    tokens: int
    largest_difference: float
    largest_share: float
    tolerance: float
    equal_tokens: bool | None
    holds: bool


def verification(cache: BlockCache, models: Iterable[ResidentModel]) -> Iterator[dict[str, Any] | None]:
    """None after each step, and the answer at the end."""
    counts: dict[str, int] = {}
    for so_far in cache.verify():
        counts = so_far
        yield None
    parities: list[Parity] = []
    for model in list(models):
        parities.append(parity(cache, model))
        yield None
    yield {**counts, "parity": msgspec.to_builtins(parities)}


def parity(cache: BlockCache, model: ResidentModel) -> Parity:
    ids = cache.latest(model.fingerprint, MOST_TOKENS)
    with _found(cache, model, ids) as hit:
        cache.load(hit)
        if not (n := hit.n_tokens):
            return Parity(model.name, 0, 0.0, 0.0, 0.0, None, holds=True)
        return _compared(model, hit, ids[: n + 1])


def _found(cache: BlockCache, model: ResidentModel, ids: Ids) -> Hit:
    """To where a snapshot is, for a model that needs one and has one there. A token is left to be read."""
    most = max(0, len(ids) - 1)
    if model.layout.needs_snapshots:
        hit = cache.match(model.fingerprint, ids, needs_snapshot=True, most=most)
        if hit.n_tokens:
            return hit
        hit.release()
    return cache.match(model.fingerprint, ids, most=most)


def _compared(model: ResidentModel, hit: Hit, ids: Ids) -> Parity:
    """`ids` are those of the hit and one more."""
    layout, n = model.layout, hit.n_tokens
    fresh = adapter.new_caches(model.model)
    model.model(mx.array(ids[:n])[None], cache=fresh)
    mx.eval([layer.state for layer in fresh])
    pieces = [(cast("StatePayload", block.payload), used) for block, used in hit.pieces]
    snapshot = cast("StatePayload | None", hit.snapshot)
    if layout.needs_snapshots and snapshot is None:
        snapshot = layout.snapshot(fresh, 0)
    stored = layout.restore(model.model, pieces, snapshot, 1)
    kept, read = layout.cut(stored, 0, 0, n), layout.cut(fresh, 0, 0, n)
    answers = [_answer(model.model, caches, int(ids[n])) for caches in (stored, fresh)]
    both = [*zip(kept.arrays, read.arrays, strict=True), (answers[0], answers[1])]
    tolerance = max(TOLERANCES[each.dtype] for each in (*read.arrays, answers[1]))
    differences = [_difference(one, other) for one, other in both]
    share = max(share for _, share in differences)
    mx.clear_cache()
    return Parity(
        model=model.name,
        tokens=n,
        largest_difference=max(difference for difference, _ in differences),
        largest_share=share,
        tolerance=tolerance,
        equal_tokens=number(mx.argmax(answers[0])) == number(mx.argmax(answers[1])),
        holds=share <= tolerance,
    )


def _answer(model: Model, caches: list[LayerCache], token: int) -> mx.array:
    """The log-probabilities of what comes after it, in the model's own type."""
    logits = model(mx.array([[token]]), cache=caches)[0, -1, :]
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def _difference(one: mx.array, other: mx.array) -> tuple[float, float]:
    """The largest, and what share it is of the largest value of the second. What is no number is as different as can
    be; equal infinities (tokens that are never said) do not differ."""
    if one.shape != other.shape:
        return float_info.max, float_info.max
    one, other = one.astype(mx.float32), other.astype(mx.float32)
    apart = mx.where(one == other, 0.0, mx.abs(one - other))
    apart = mx.where(mx.isfinite(apart), apart, float("inf"))
    largest = number(mx.where(mx.isfinite(other), mx.abs(other), 0.0).max())
    difference = min(number(apart.max()), float_info.max)
    if difference == 0.0 or largest == 0.0:
        return difference, 0.0 if difference == 0.0 else float_info.max
    return difference, min(difference / largest, float_info.max)
