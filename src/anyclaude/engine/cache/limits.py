"""What a store may take of the disk, and which files go first when it is too much."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from msgspec import Struct

from anyclaude.engine.cache.index import File
from anyclaude.engine.cache.seam import RequestClass, Stored

DAY_S = 86400.0
SIDE_SHARE = 0.5  # of a day's writing that side requests may use up
EVICTED_TO = 0.95  # of the budget, so that not every write has to make room
# On disk a class is worth time: a conversation counts as if it had been used that much later than a side request.
WORTH_S: dict[RequestClass, float] = {"side": 0.0, "conversation": DAY_S, "system": 7 * DAY_S}


class StoreLimits(Struct, frozen=True, kw_only=True):
    """`keep_free_bytes` of the disk are left to others; `waiting_bytes` may wait to be written; what nobody used for
    `age_s` goes."""

    budget_bytes: int = 20 << 30
    daily_bytes: int = 32 << 30
    age_s: float = 30 * DAY_S
    keep_free_bytes: int = 1 << 30
    waiting_bytes: int = 512 << 20


def first_to_go(files: Mapping[bytes, File], pinned: Collection[bytes], n_bytes: int) -> list[bytes]:
    """As many as hold `n_bytes`: what counts as used longest ago, descendants before ancestors, pinned ones last."""
    ways = set(on_the_way(files, pinned))
    order = sorted(files.values(), key=lambda file: (file.entry.name in ways, *_used(file.entry)))
    going: list[bytes] = []
    for file in order:
        if n_bytes <= 0:
            break
        going.append(file.entry.name)
        n_bytes -= file.size
    return going


def expired(files: Mapping[bytes, File], pinned: Collection[bytes], before: float) -> list[bytes]:
    ways = set(on_the_way(files, pinned))
    return [name for name, file in files.items() if file.entry.used_at < before and name not in ways]


def on_the_way(files: Mapping[bytes, File], names: Iterable[bytes]) -> Iterator[bytes]:
    """The names, all that they hang under, and the snapshots that are passed."""
    passed: dict[bytes, list[bytes]] = {}
    for name in names:
        at = name
        while file := files.get(at):
            yield at
            at = file.entry.parent
            passed.setdefault(at, []).append(file.entry.ids)
    for name, file in files.items():
        entry = file.entry
        if entry.kind == "snapshot" and any(ids.startswith(entry.ids) for ids in passed.get(entry.parent, ())):
            yield name


def with_descendants(files: Mapping[bytes, File], names: Iterable[bytes]) -> set[bytes]:
    below: dict[bytes, list[bytes]] = {}
    for name, file in files.items():
        below.setdefault(file.entry.parent, []).append(name)
    found: set[bytes] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += below.get(name, ())
    return found


def _used(entry: Stored) -> tuple[float, int]:
    return entry.used_at + WORTH_S[entry.request_class], -entry.start
