"""The cache in figures. `docs/` and the dashboard name these fields."""

from msgspec import Struct


class StoreStatistics(Struct, frozen=True):
    """`problem` says why nothing is written, empty if it is. Bytes are of files; those that wait are payloads."""

    folder: str
    is_read_only: bool
    problem: str
    budget_bytes: int
    daily_budget_bytes: int
    n_files: int
    file_bytes: int
    n_waiting: int
    waiting_bytes: int
    written_today_bytes: int
    n_written: int
    written_bytes: int
    n_failed: int
    n_read: int
    read_bytes: int
    n_set_aside: int
    n_evicted: int
    n_expired: int


class CacheStatistics(Struct, frozen=True):
    """Bytes are of payloads in memory; `n_blocks` includes those that are on disk only."""

    budget_bytes: int
    held_bytes: int
    side_bytes: int
    conversation_bytes: int
    system_bytes: int
    pinned_bytes: int
    snapshot_bytes: int
    n_blocks: int
    n_blocks_in_memory: int
    n_snapshots: int
    n_leased: int
    n_lookups: int
    n_hits: int
    n_tokens_asked: int
    n_tokens_hit: int
    n_loaded: int
    loaded_bytes: int
    n_put: int
    put_bytes: int
    n_evicted: int
    evicted_bytes: int
    n_refused: int
    n_to_write: int
    store: StoreStatistics | None
