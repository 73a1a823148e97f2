"""Pins: a prefix that a person wants kept. Everything on the way to a pinned block goes last.

They are names of blocks, so a pin stays when its block is gone, and holds again when the block is back."""

from collections.abc import Callable, Iterable, Sequence

from anyclaude.engine.cache.block import Block, Held, path_to
from anyclaude.engine.cache.budget import Budget
from anyclaude.engine.cache.lookup import snapshots_on_the_way


class Pins:
    """`save` is given all names whenever they change."""

    def __init__(self, names: Iterable[bytes], budget: Budget, save: Callable[[frozenset[bytes]], bool]) -> None:
        self.names = frozenset(names)
        self._holding: dict[bytes, Sequence[Held]] = {}
        self._budget = budget
        self._save = save

    def add(self, block: Block) -> bool:
        """Whether it will survive a restart."""
        self._hold(block)
        return self._change(self.names | {block.name})

    def remove(self, name: bytes) -> bool:
        self._let_go(name)
        return self._change(self.names - {name})

    def clear(self) -> None:
        for name in list(self._holding):
            self._let_go(name)
        self._change(frozenset())

    def entered(self, held: Held) -> None:
        """A block is in the tree now."""
        if held.name in self.names and isinstance(held, Block):
            self._hold(held)

    def left(self, held: Held) -> None:
        """It is about to leave the tree: what it was pinned with has one pin less."""
        if held.n_pins:
            for name in [name for name, holding in self._holding.items() if held in holding]:
                self._let_go(name)

    def replaced(self, old: Held, new: Held) -> None:
        """The pin of a tail is one of the block that continues it."""
        if old.name in self.names:
            self._change(self.names - {old.name} | {new.name})

    def _hold(self, block: Block) -> None:
        if block.name in self._holding:
            return
        ids = b"".join(reversed([each.data for each in path_to(block)]))
        holding = [*snapshots_on_the_way(block, ids), *path_to(block)]
        self._holding[block.name] = holding
        self._add_to(holding, 1)

    def _let_go(self, name: bytes) -> None:
        self._add_to(self._holding.pop(name, ()), -1)

    def _add_to(self, holding: Iterable[Held], n: int) -> None:
        for held in holding:
            self._budget.change_rank(held, lambda held=held: setattr(held, "n_pins", held.n_pins + n))
            self._budget.touch(held)

    def _change(self, names: frozenset[bytes]) -> bool:
        self.names = names
        return self._save(names)
