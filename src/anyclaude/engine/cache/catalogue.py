"""What is known of a store's files, in memory, in the index and in the folder: brought to agree when it is opened, and
changed here only. Safe for one thread at a time; `commit` may run beside the others."""

import logging
import sqlite3
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from anyclaude.engine.cache.block_file import Damaged
from anyclaude.engine.cache.folder import BlockFolder
from anyclaude.engine.cache.index import File, Index, read_files
from anyclaude.engine.cache.limits import DAY_S, EVICTED_TO, StoreLimits, expired, first_to_go, with_descendants
from anyclaude.engine.cache.seam import RequestClass, Stored

INDEX = "index.sqlite3"
log = logging.getLogger(__name__)


class Catalogue:
    """`problem` says why nothing can be written, empty if it can."""

    def __init__(self, folder: BlockFolder, limits: StoreLimits, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.limits = limits
        self.files: dict[bytes, File] = {}
        self.models: dict[bytes, str] = {}  # by fingerprint
        self.found: list[Stored] = []
        self.lost: list[bytes] = []
        self.pins = folder.read_pins()
        self.problem = ""
        self.n_bytes = 0
        self.n_set_aside = self.n_evicted = self.n_expired = 0
        self._clock = clock
        self._index: Index | None = None
        self._day = self._written_today = 0
        self._added: dict[bytes, File] = {}
        self._removed: set[bytes] = set()
        self._used: dict[bytes, tuple[RequestClass, float]] = {}
        if not self.become_writer():
            self._look()

    @property
    def written_today(self) -> int:
        return self._written_today if self._day == self._today() else 0

    # ---- opening

    def take_news(self) -> tuple[list[Stored], list[bytes]]:
        """What was found since the last time, and what was there and is not any more."""
        found, self.found = [entry for entry in self.found if entry.name in self.files], []
        lost, self.lost = self.lost, []
        return found, lost

    def become_writer(self) -> bool:
        """Whether this process is the one that writes now: then folder, index and memory agree."""
        try:
            if not self.folder.lock():
                self.problem = "another process writes there"
                return False
            self.folder.clean()
        except OSError as error:
            self.problem = f"it cannot be written: {error.strerror}"
            return False
        self.problem = ""
        self._open_index()
        self._agree(self._index.files if self._index else [])
        self.expire()
        return True

    def _open_index(self) -> None:
        try:
            self._index = Index(self.folder.path / INDEX)
            self._day = self._today()
            self._written_today = self._index.written_on(self._day)
        except (sqlite3.Error, OSError) as error:
            log.warning("the index in %s cannot be used, the files are read instead: %s", self.folder.path, error)

    def _agree(self, rows: Iterable[File]) -> None:
        sizes = self.folder.sizes()
        indexed = {row.entry.name: row for row in rows}
        same = {name: row for name, row in indexed.items() if sizes.get(name) == row.size}
        self._removed |= indexed.keys() - same.keys()
        for row in same.values():
            self._know(row)
        for name, file in self.folder.heads(sizes.keys() - same.keys()):
            if isinstance(file, Damaged):
                self.n_set_aside += 1
                self.folder.set_aside(name, str(file))
            else:
                self._know(file)
                self._added[name] = file
                is_of_today = self.folder.modified_at(name) // DAY_S == self._today()
                self._written_today += file.size if is_of_today else 0
        gone = self.files.keys() - sizes.keys()
        self.lost += gone
        for name in gone:
            self.forget(name)

    def _look(self) -> None:
        """Without changing anything."""
        sizes = self.folder.sizes()
        try:
            rows = {row.entry.name: row for row in read_files(self.folder.path / INDEX)}
        except (sqlite3.Error, OSError):
            rows = {}
        for name, size in sizes.items():
            if (row := rows.get(name)) and row.size == size:
                self._know(row)
        for _, file in self.folder.heads(sizes.keys() - self.files.keys()):
            if isinstance(file, File):
                self._know(file)

    def _know(self, file: File) -> None:
        if file.entry.name not in self.files:
            self.files[file.entry.name] = file
            self.n_bytes += file.size
            self.found.append(file.entry)
            if file.model:
                self.models[file.entry.fingerprint] = file.model

    # ---- changing

    def add(self, file: File) -> None:
        """It was written just now."""
        name = file.entry.name
        self.files[name] = self._added[name] = file
        self._removed.discard(name)
        self.n_bytes += file.size
        self._written_today = self.written_today + file.size
        self._day = self._today()

    def forget(self, name: bytes) -> bool:
        """It is not there any more."""
        file = self.files.pop(name, None)
        if not file:
            return False
        self.n_bytes -= file.size
        self._added.pop(name, None)
        self._used.pop(name, None)
        self._removed.add(name)
        return True

    def remove(self, names: Iterable[bytes]) -> int:
        gone = [name for name in names if self.forget(name)]
        for name in gone:
            self.folder.remove(name)
        return len(gone)

    def remove_below(self, names: Iterable[bytes]) -> set[bytes]:
        """These and all that hangs under them; what it is that goes."""
        going = with_descendants(self.files, names)
        self.remove(going)
        return going

    def set_aside(self, name: bytes, why: str) -> bool:
        """Whether it was known."""
        is_known = self.forget(name)
        if is_known and not self.problem:
            self.n_set_aside += 1
            self.folder.set_aside(name, why)
        return is_known

    def use(self, uses: Iterable[tuple[bytes, RequestClass]], used_at: float) -> None:
        self._used.update((name, (request_class, used_at)) for name, request_class in uses if name in self.files)

    def make_room(self, n_bytes: int) -> list[bytes]:
        """The names of what had to go."""
        wanted, budget = self.n_bytes + n_bytes, self.limits.budget_bytes
        if wanted <= budget:
            return []
        self._apply_uses()
        going = first_to_go(self.files, self.pins, wanted - int(EVICTED_TO * budget))
        self.n_evicted += self.remove(going)
        return going

    def expire(self) -> list[bytes]:
        self._apply_uses()
        going = expired(self.files, self.pins, self._clock() - self.limits.age_s)
        self.n_expired += self.remove(going)
        return going

    def clear(self) -> int:
        for name in list(self.files):
            self.forget(name)
        self.pins = frozenset()
        return self.folder.clear()

    def _apply_uses(self) -> None:
        for name, (request_class, used_at) in self._used.items():
            file = self.files[name]
            entry = replace(file.entry, request_class=request_class, used_at=used_at)
            self.files[name] = replace(file, entry=entry)

    # ---- the index

    def take_changes(self) -> Callable[[], None]:
        """What the index does not know yet; calling it tells the index. Raises sqlite3.Error."""
        self._apply_uses()
        added = [self.files[name] for name in self._added]
        removed = list(self._removed)
        used: list[tuple[bytes, RequestClass, float]] = [
            (name, request_class, used_at) for name, (request_class, used_at) in self._used.items()
        ]
        self._added, self._removed, self._used = {}, set(), {}
        day, index = (self._today(), self.written_today), self._index
        return lambda: index.change(added, removed, used, day) if index and (added or removed or used) else None

    def close(self) -> None:
        if self._index:
            self._index.close()
        self.folder.close()

    def _today(self) -> int:
        return int(self._clock() // DAY_S)
