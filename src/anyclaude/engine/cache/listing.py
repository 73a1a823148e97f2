"""What a person sees of the tree: one line for each end of a prompt, of a shared head, of what is pinned, and where
prompts part."""

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from anyclaude.engine.cache.block import Block, Root, path_to

DIGEST_SHOWN = 12


class Listed(Struct, frozen=True):
    """The first `n_tokens` of some prompts. What is `own` it does not share with a line above it; `held_bytes` of that
    are in memory, `stored_bytes` on disk."""

    digest: str
    model: str
    n_tokens: int
    own_tokens: int
    own_bytes: int
    held_bytes: int
    stored_bytes: int
    request_class: str
    is_pinned: bool
    used_at: float


def listed(roots: Iterable[Root], models: Mapping[bytes, str], pins: frozenset[bytes]) -> Iterator[Listed]:
    for root in roots:
        for held in root.below():
            if isinstance(held, Block) and not held.is_root and _is_an_end(held, pins):
                yield _line(held, models.get(root.fingerprint, ""), pins)


def _is_an_end(block: Block, pins: frozenset[bytes]) -> bool:
    if len(block.children) != 1 or block.name in pins:
        return True
    return any(child.request_class != block.request_class for child in block.children.values())


def _line(block: Block, model: str, pins: frozenset[bytes]) -> Listed:
    own = own_blocks(block, pins)
    return Listed(
        digest=block.name.hex()[:DIGEST_SHOWN],
        model=model,
        n_tokens=block.end,
        own_tokens=sum(each.n_tokens for each in own),
        own_bytes=sum(each.n_bytes for each in own),
        held_bytes=sum(each.n_bytes for each in own if each.payload is not None),
        stored_bytes=sum(each.n_bytes for each in own if each.is_stored),
        request_class=block.request_class,
        is_pinned=block.name in pins,
        used_at=block.used_at,
    )


def own_blocks(block: Block, pins: frozenset[bytes]) -> list[Block]:
    """The block and those before it up to the line above, the nearest first."""
    own = [block]
    for above in path_to(block.parent):
        if _is_an_end(above, pins):
            break
        own.append(above)
    return own
