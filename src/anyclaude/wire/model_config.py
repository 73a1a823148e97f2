"""What a model's config.json says (transformers' names), as far as both sides of the engine read it."""

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
