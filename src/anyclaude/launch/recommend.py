"""Which model suits this machine's memory, and why. The weights' sizes are approximate: nothing is asked of the hub."""

import importlib.metadata
import sys
from typing import Literal

import psutil
from msgspec import Struct

MEMORY_SHARE = 0.75  # the rest is for the system, the client and what it runs
STATES = 2.5  # measured with mlx-lm 0.32.2: the blocks of a conversation and the row that runs, at its peak
ROOMS = (65_536, 32_768, 24_576)  # tokens of one conversation; the client's own prompt takes about 14,000 of them
_GB = 1_000_000_000


class Known(Struct, frozen=True):
    """A public model. `weights_bytes` is approximate; `kv_bytes` is for one token in 16 bits."""

    name: str
    weights_bytes: int
    kv_bytes: int
    window: int


# The largest first.
KNOWN = (
    Known("mlx-community/Qwen3-Next-80B-A3B-Instruct-4bit", 45 * _GB, 24 << 10, 262_144),
    Known("mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit", 17 * _GB, 96 << 10, 262_144),
    Known("mlx-community/Qwen3-8B-4bit", 5 * _GB, 144 << 10, 40_960),
    Known("mlx-community/Qwen3-4B-Instruct-2507-4bit", 2 * _GB, 144 << 10, 262_144),
)
_BY_NAME = {known.name: known for known in KNOWN}


class Machine(Struct, frozen=True):
    """`budget_bytes` is what models and their state may take of `memory_bytes`."""

    memory_bytes: int
    budget_bytes: int
    accelerator: Literal["apple", "cuda", "none"]


class Suited(Struct, frozen=True):
    """`tokens` of one conversation have room beside the weights, at most the model's window."""

    model: Known
    tokens: int


class Advice(Struct, frozen=True):
    """`best` None where nothing fits; `room` is the number of tokens that it was chosen by."""

    best: Suited | None
    room: int
    machine: Machine
    all: tuple[Suited, ...]


def this_machine(engine_memory_mb: int | None) -> Machine:
    total = psutil.virtual_memory().total
    budget = engine_memory_mb * 1_000_000 if engine_memory_mb is not None else int(MEMORY_SHARE * total)
    return Machine(total, budget, _accelerator())


def _accelerator() -> Literal["apple", "cuda", "none"]:
    if sys.platform == "darwin":
        return "apple"
    names = {distribution.name for distribution in importlib.metadata.distributions()}
    return "cuda" if names & {"mlx-cuda-12", "mlx-cuda-13"} else "none"


def advise(machine: Machine) -> Advice:
    """The largest that has room for a long conversation, else for a shorter one."""
    suited = tuple(
        Suited(known, min(known.window, tokens_that_fit(machine, known.weights_bytes, known.kv_bytes)))
        for known in KNOWN
    )
    for room in ROOMS:
        for each in suited:
            if each.tokens >= min(room, each.model.window):
                return Advice(each, room, machine, suited)
    return Advice(None, ROOMS[-1], machine, suited)


def rank(name: str) -> int | None:
    """The place among the known ones, 0 for the largest; None for any other model."""
    return KNOWN.index(_BY_NAME[name]) if name in _BY_NAME else None


def tokens_that_fit(machine: Machine, weights_bytes: int, kv_bytes: int) -> int:
    """Tokens of one conversation whose state fits beside the weights; 0 where not even the weights do."""
    return max(0, int((machine.budget_bytes - weights_bytes) / (STATES * kv_bytes)))


def gigabytes(n_bytes: int) -> str:
    """For a person to read."""
    return f"{n_bytes / 1e9:.1f} GB"
