"""What waits to be written. It can be read from here while it does."""

from collections.abc import Iterable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from anyclaude.engine.cache.seam import Buffer, Header, Read, RequestClass, Stored


class Job(Struct, frozen=True, eq=False):
    """When it is written, the files that it `replaces` go."""

    entry: Stored
    header: Header
    buffers: Sequence[Buffer]
    replaces: Sequence[bytes]
    model: str

    @property
    def n_bytes(self) -> int:
        return sum(memoryview(buffer).nbytes for buffer in self.buffers)

    def read(self) -> Read:
        return Read(self.entry, self.header, memoryview(b"".join(self.buffers)))


class Waiting:
    """In the order of their coming."""

    def __init__(self) -> None:
        self.n_bytes = 0
        self._jobs: dict[bytes, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, name: bytes) -> bool:
        return name in self._jobs

    def get(self, name: bytes) -> Job | None:
        return self._jobs.get(name)

    def add(self, job: Job) -> None:
        self._jobs[job.entry.name] = job
        self.n_bytes += job.n_bytes

    def use(self, uses: Iterable[tuple[bytes, RequestClass]], used_at: float) -> None:
        for name, request_class in uses:
            if job := self._jobs.get(name):
                entry = replace(job.entry, request_class=request_class, used_at=used_at)
                self._jobs[name] = replace(job, entry=entry)

    def remove(self, name: bytes) -> Job | None:
        job = self._jobs.pop(name, None)
        self.n_bytes -= job.n_bytes if job else 0
        return job

    def first(self, n: int) -> list[Job]:
        return [job for job, _ in zip(self._jobs.values(), range(n), strict=False)]

    def names(self) -> list[bytes]:
        return list(self._jobs)

    def clear(self) -> int:
        n = len(self._jobs)
        self._jobs.clear()
        self.n_bytes = 0
        return n
