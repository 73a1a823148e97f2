"""What a model folder holds besides weights and config.json, for the models that tests make. No MLX."""

import functools
from collections.abc import Sequence
from pathlib import Path

from demo.tiny_model import CHAT_TEMPLATE, TOKENIZER_CONFIG, train_tokenizer, write_json


@functools.cache
def trained_tokenizer(n_vocab: int) -> str:
    """tokenizer.json of the demo's tokenizer, with so many entries; trained once per process."""
    return train_tokenizer(n_vocab).to_str()


def write_tokenizer_files(folder: Path, tokenizer: str, end_ids: Sequence[int], *, n_context: int) -> None:
    """ChatML with tools, append-only; greedy unless a request says otherwise."""
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.lstrip("\n"), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", TOKENIZER_CONFIG | {"model_max_length": n_context})
    write_json(
        folder / "generation_config.json", {"do_sample": False, "temperature": 0.0, "eos_token_id": list(end_ids)}
    )
