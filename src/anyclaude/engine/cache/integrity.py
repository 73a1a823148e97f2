"""What must hold of the tree at any time, said once; tests ask after every step."""

from anyclaude.engine.cache.block import WIDTH, Block, Held, Root, Snapshot, digest_of
from anyclaude.engine.cache.tree import Tree


def check(tree: Tree) -> None:
    """Raises AssertionError."""
    seen: dict[bytes, Held] = {}
    for fingerprint, root in tree.roots.items():
        assert root.fingerprint == fingerprint
        for held in root.below():
            if isinstance(held, Block):
                _check_under(held, tree.n_tokens)
            if not isinstance(held, Root):
                _check_held(held)
                seen[held.name] = held
    assert seen == tree.names
    _check_sums(tree, list(seen.values()))


def _check_under(block: Block, n_tokens: int) -> None:
    whole = block.is_root or block.n_tokens == n_tokens
    assert whole or not block.children, "a tail has no children"
    for data, child in block.children.items():
        assert child.parent is block
        assert child.data == data
        assert 0 < len(data) <= n_tokens * WIDTH
        assert child.start == block.end
    for data, snapshot in block.snapshots.items():
        assert snapshot.parent is block
        assert snapshot.data == data
        assert any(child.startswith(data) for child in block.children), "a snapshot's blocks are there"


def _check_held(held: Held) -> None:
    assert held.is_in_tree
    assert held.name == digest_of(held.kind, held.parent.name, held.data)
    assert held.payload is not None or held.is_stored
    assert held.payload is None or held.n_bytes == held.payload.nbytes
    assert not (held.is_private and held.is_stored), "what is private is on no disk"
    above = held.parent
    if not isinstance(held, Snapshot) and not above.is_root:
        assert above.rank >= held.rank, "an ancestor is never of a lower class"
        assert above.n_leases >= held.n_leases
        assert above.used_at >= held.used_at
        if above.payload is not None and held.payload is not None and not above.n_leases:
            assert above.tick > held.tick, "descendants go before ancestors"


def _check_sums(tree: Tree, everything: list[Held]) -> None:
    held = [each for each in everything if each.payload is not None]
    budget = tree.budget
    assert budget.n_held == sum(each.n_bytes for each in held)
    assert budget.n_in_snapshots == sum(each.n_bytes for each in held if isinstance(each, Snapshot))
    for rank, n_bytes in enumerate(budget.held_by_rank):
        assert n_bytes == sum(each.n_bytes for each in held if each.rank == rank)
    assert budget.n_queued == sum(not each.n_leases for each in held)
    if not any(each.n_leases for each in held):
        assert budget.n_held <= budget.n_bytes
