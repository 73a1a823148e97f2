"""What a model's folder is called, and what its config.json says (transformers' names), as far as both sides of the
engine read it."""

from collections.abc import Mapping
from typing import Any, cast

_WINDOW_KEYS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")


def window_in(config: Mapping[str, Any]) -> int | None:
    """The context window in tokens; None where it is not told."""
    for table in (config, config.get("text_config")):
        for key in _WINDOW_KEYS if isinstance(table, Mapping) else ():
            figure = cast("Mapping[str, Any]", table).get(key)
            if isinstance(figure, int) and not isinstance(figure, bool) and figure > 0:
                return figure
    return None


def model_name(model: str) -> str:
    """The last part of a name; of a snapshot in the hub's cache the model's, and not that of the commit."""
    repository, is_snapshot, _ = model.rpartition("/snapshots/")
    if is_snapshot and "models--" in repository:
        return repository.rpartition("--")[2]
    return model.rpartition("/")[2]
