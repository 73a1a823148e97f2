"""A process that keeps putting conversations into a store, to be killed at any moment.

    python -m tests.engine.cache.writer FOLDER SEED

Prompts are made from small numbers, so that later runs meet what earlier ones have written."""

import random
import sys
from pathlib import Path

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.limits import StoreLimits
from anyclaude.engine.cache.seam import Header, Payload
from anyclaude.engine.cache.store import BlockStore
from tests.engine.cache.states import Sum, SumCodec, assert_right, ids_of, maker, snapshot_of

MODEL = b"killed"
BLOCK = 16
PADDING = bytes(range(256)) * 1024


class LargeCodec(SumCodec):
    """Files of a quarter of a megabyte, so that a kill often meets one half written."""

    def pack(self, payload: Payload) -> tuple[Header, list[memoryview]]:
        header, buffers = super().pack(payload)
        return header, [*buffers, memoryview(PADDING)]

    def unpack(self, header: Header, data: memoryview) -> Sum:
        if bytes(data[-len(PADDING) :]) != PADDING:
            raise ValueError("not what was written")
        return super().unpack(header, data[: -len(PADDING)])


def opened(folder: Path) -> BlockCache:
    limits = StoreLimits(budget_bytes=20 << 20, keep_free_bytes=0)
    return BlockCache(50_000, BlockStore(folder, limits), LargeCodec(), n_tokens=BLOCK, quiet_s=0.0)


def prompt(chance: random.Random) -> list[int]:
    """One of four heads, then a few of many turns."""
    tokens = [chance.randrange(4)] * 40
    for _ in range(chance.randrange(12)):
        tokens += [10 + chance.randrange(5)] * 9
    return tokens


def main(folder: Path, seed: int) -> None:
    chance, cache = random.Random(seed), opened(folder)
    print("open", flush=True)
    while True:
        tokens = prompt(chance)
        needs_snapshot = chance.random() < 0.5
        with cache.match(MODEL, ids_of(tokens), needs_snapshot=needs_snapshot) as hit:
            cache.load(hit)
            assert_right(hit, tokens)
        cache.put(MODEL, ids_of(tokens), 0, maker(tokens), chance.choice(("system", "conversation", "side")))
        cache.put_snapshot(MODEL, ids_of(tokens), snapshot_of(tokens))
        cache.tend()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
