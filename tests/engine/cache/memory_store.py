"""A store in memory, at once and without threads: files survive it, since they are given from one to the next."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from anyclaude.engine.cache.seam import Buffer, Header, News, Read, RequestClass, Stored
from anyclaude.engine.cache.statistics import StoreStatistics


@dataclass
class Disk:
    files: dict[bytes, Read] = field(default_factory=dict[bytes, Read])
    pins: frozenset[bytes] = frozenset()


class MemoryStore:
    """`is_full` refuses what is new; `lose` and `expire` are what a disk may do at any time."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.is_full = False
        self.n_written = 0
        self.aside: list[bytes] = []
        self._found: list[Stored] = [read.entry for read in disk.files.values()]
        self._failed: list[bytes] = []
        self._evicted: list[bytes] = []

    def news(self) -> News:
        news = News(self._found, self._failed, self._evicted)
        self._found, self._failed, self._evicted = [], [], []
        return news

    def has_room(self, n_bytes: int, request_class: RequestClass) -> bool:
        return not self.is_full

    def write(
        self, entry: Stored, header: Header, buffers: Sequence[Buffer], replaces: Sequence[bytes], model: str
    ) -> bool:
        if self.is_full:
            return False
        self.disk.files[entry.name] = Read(entry, header, memoryview(b"".join(buffers)))
        self.n_written += 1
        for name in replaces:
            self.disk.files.pop(name, None)
        return True

    def read_many(self, names: Sequence[bytes]) -> Iterator[Read | None]:
        return (self.disk.files.get(name) for name in names)

    def set_aside(self, name: bytes, why: str) -> None:
        self.disk.files.pop(name, None)
        self.aside.append(name)

    def touch(self, uses: Sequence[tuple[bytes, RequestClass]], used_at: float) -> None:
        for name, request_class in uses:
            if read := self.disk.files.get(name):
                entry = replace(read.entry, used_at=used_at, request_class=request_class)
                self.disk.files[name] = read._replace(entry=entry)

    def remove(self, names: Iterable[bytes]) -> None:
        for name in names:
            self.disk.files.pop(name, None)

    def clear(self) -> int:
        n = len(self.disk.files)
        self.disk.files.clear()
        return n

    def verify(self) -> Iterator[Mapping[str, int]]:
        yield {"files": len(self.disk.files)}

    def close(self, limit_s: float) -> None: ...

    def pins(self) -> frozenset[bytes]:
        return self.disk.pins

    def set_pins(self, names: frozenset[bytes]) -> bool:
        self.disk.pins = names
        return True

    def flush(self, limit_s: float) -> bool:
        return True

    def statistics(self) -> StoreStatistics:
        raise NotImplementedError

    def lose(self, name: bytes) -> None:
        """It could not be written after all."""
        if self.disk.files.pop(name, None):
            self._failed.append(name)

    def expire(self, name: bytes) -> None:
        if self.disk.files.pop(name, None):
            self._evicted.append(name)
