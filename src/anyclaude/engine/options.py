"""What the engine may use, as the server passes it on: one JSON object on its command line."""

import msgspec
import psutil
from msgspec import Struct

from anyclaude.engine.cache.limits import DAY_S, StoreLimits

_GIB = 1 << 30
_MB = 1_000_000


class Options(Struct, frozen=True, kw_only=True):
    """In MB and days; None is a share of the machine's memory."""

    engine_memory_mb: int | None = None
    kv_memory_mb: int | None = None
    kv_disk_mb: int = 20_000
    kv_disk_days: int = 30
    kv_write_mb_a_day: int = 40_000

    @property
    def memory_bytes(self) -> int:
        """For weights, state and what is computed: three quarters of the machine unless told."""
        if self.engine_memory_mb is not None:
            return self.engine_memory_mb * _MB
        return psutil.virtual_memory().total * 3 // 4

    @property
    def kv_memory_bytes(self) -> int:
        """For blocks: an eighth of the machine unless told, but no less than a gigabyte."""
        if self.kv_memory_mb is not None:
            return self.kv_memory_mb * _MB
        return max(_GIB, psutil.virtual_memory().total // 8)


def read_options(text: str) -> Options:
    """Raises msgspec.ValidationError."""
    return msgspec.json.decode(text, type=Options)


def store_limits(options: Options) -> StoreLimits:
    """A budget of 0 is no store at all."""
    return StoreLimits(
        budget_bytes=options.kv_disk_mb * _MB,
        daily_bytes=options.kv_write_mb_a_day * _MB,
        age_s=options.kv_disk_days * DAY_S,
    )
