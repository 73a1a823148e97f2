"""Reading a prompt: what the block cache holds is put together, the rest is computed chunk by chunk, and every chunk is
kept as soon as it is done, so that whoever comes next, or comes again, does not compute it a second time."""

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from anyclaude.engine.cache.blocks import N_TOKENS, BlockCache
from anyclaude.engine.cache.seam import RequestClass
from anyclaude.engine.generation.row import Row
from anyclaude.engine.model import adapter
from anyclaude.engine.model.state import ROOM, StatePayload
from anyclaude.wire.frames import Began, Prefilled, Report

CHUNK = 2048
SMALL_CHUNK = 512
LOAD_BYTES = 1 << 29
SMALL_LOAD_BYTES = 1 << 26


def known_tokens(row: Row, cache: BlockCache) -> int:
    """How much of its prompt need not be read, as things are now."""
    needs_snapshot = row.model.layout.needs_snapshots
    return cache.known(row.model.fingerprint, row.ids, needs_snapshot=needs_snapshot, most=row.n_prompt - 1)


def begin(row: Row, cache: BlockCache, report: Callable[[Report], None], most_bytes: int) -> bool:
    """Puts together what is known; False while some of it is still on disk, of which so much was read now.

    At least the last token is left to be read: it gives the first one of the answer."""
    layout, model = row.model.layout, row.model.model
    if row.hit is None:
        row.hit = cache.match(
            row.model.fingerprint, row.ids, needs_snapshot=layout.needs_snapshots, most=row.n_prompt - 1
        )
    if not cache.load(row.hit, most_bytes):
        return False
    with row.hit as hit:
        row.n_cached = row.n_done = hit.n_tokens
        if hit.n_tokens:
            pieces = [(cast("StatePayload", block.payload), used) for block, used in hit.pieces]
            snapshot = cast("StatePayload | None", hit.snapshot)
            row.caches = layout.restore(model, pieces, snapshot, row.n_prompt - hit.n_tokens + ROOM)
        else:
            row.caches = adapter.new_caches(model)
    row.hit = None
    row.is_begun = True
    if row.answer is not None:
        report(Began(row.id, row.n_prompt, row.n_cached, row.answer.signature))
    return True


def give_up(row: Row, cache: BlockCache) -> None:
    """It is not read on: what was read stays in the cache, to the token."""
    if row.hit is not None:
        row.hit.release()
        row.hit = None
    if row.n_done > row.n_cached:
        keep_state(row, cache, row.caches, 0, row.n_done)
    row.caches = []


def read_chunk(row: Row, cache: BlockCache, report: Callable[[Report], None], size: int) -> bool:
    """Whether all but the last token are in the state now."""
    start, end = row.n_done, _chunk_end(row, size)
    if end > start:
        model = row.model.model
        model(mx.array(row.ids[start:end])[None], cache=row.caches)
        mx.eval([layer.state for layer in row.caches])
        mx.clear_cache()
        if start == 0:
            row.model.layout.reserve(row.caches, row.n_prompt + ROOM)
        row.n_done = end
        row.n_prefilled += end - start
        _keep(row, cache, end)
        if row.answer is not None:
            report(Prefilled(row.id, row.n_done, row.n_prompt))
    return row.n_done == row.n_prompt - 1


def _chunk_end(row: Row, size: int) -> int:
    """On the edge of a block where it can be; a place whose state is to be kept is never passed."""
    last = row.n_prompt - 1
    end = min(row.n_done + size, last)
    if end < last:
        end = max(end - end % N_TOKENS, row.n_done + 1)
    if row.model.layout.needs_snapshots:
        end = min((place for place in (*row.ends, last) if row.n_done < place < end), default=end)
    return end


def _keep(row: Row, cache: BlockCache, n: int) -> None:
    """Whole blocks; of a model whose state cannot be cut also the state at the places where others may go on."""
    if row.model.layout.needs_snapshots and (n in row.ends or n == row.n_prompt - 1):
        keep_state(row, cache, row.caches, 0, n)
    else:
        keep_blocks(row, cache, row.caches, 0, n - n % N_TOKENS)


def keep_blocks(row: Row, cache: BlockCache, caches: list[adapter.LayerCache], at: int, n: int) -> None:
    """The first `n` tokens of row `at` of a batch: what is there already is not copied again."""
    ids, layout = row.all_ids(), row.model.layout
    head = min(row.head_end - row.head_end % N_TOKENS, n)
    classes: list[tuple[int, RequestClass]] = [(head, row.head_class), (n, row.block_class)]
    for end, request_class in classes:
        if end > 0:
            cache.put(
                row.model.fingerprint,
                ids[:end],
                0,
                lambda first, last: layout.cut(caches, at, first, last),
                request_class,
                is_private=row.is_private,
            )


def keep_state(row: Row, cache: BlockCache, caches: list[adapter.LayerCache], at: int, n: int) -> None:
    """Blocks with the tail up to exactly `n` tokens, and there the state of layers that cannot be cut."""
    keep_blocks(row, cache, caches, at, n)
    if row.model.layout.needs_snapshots:
        payload = row.model.layout.snapshot(caches, at)
        own: RequestClass = row.head_class if n <= row.head_end else row.block_class
        cache.put_snapshot(row.model.fingerprint, row.all_ids()[:n], payload, own, is_private=row.is_private)
