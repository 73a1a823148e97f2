"""What a model folder says of its tokens: the tokenizer's files, read and merged as transformers merges them.

Nothing of the folder is trusted: sizes are bounded, only regular files are read, and every fault is ModelRefused.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.errors import ModelRefused

_MAX_BYTES = {"tokenizer.json": 256 << 20}
_MAX_OTHER = 16 << 20
_MAX_MARKER = 512

Table = dict[str, Any]


class AddedToken(Struct, frozen=True):
    """`lstrip` and `rstrip`: white space before and after it is part of it."""

    id: int
    text: str
    is_special: bool = False
    lstrip: bool = False
    rstrip: bool = False

    @property
    def is_plain(self) -> bool:
        """Runs of white space that are tokens of their own: words of the vocabulary, which steer nothing."""
        return not self.is_special and not self.text.strip(" \t\r\n▁")


def read_text(folder: Path, name: str) -> str | None:
    """None where there is no such file. Raises ModelRefused."""
    path = folder / name
    try:
        if not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > _MAX_BYTES.get(name, _MAX_OTHER):
            raise ModelRefused(f"{path} is no regular file, or larger than any {name} is")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelRefused(f"{path} cannot be read: {error}") from None


def read_table(folder: Path, name: str) -> Table | None:
    """A JSON object. Raises ModelRefused."""
    text = read_text(folder, name)
    if text is None:
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        raise ModelRefused(f"{folder / name} is no JSON; download the model again") from None
    if not isinstance(value, dict):
        raise ModelRefused(f"{folder / name} is no JSON object; download the model again")
    return cast("Table", value)


def added_tokens(tokenizer: Table, config: Table) -> tuple[AddedToken, ...]:
    """Of tokenizer.json, and of tokenizer_config.json where that knows more. Raises ModelRefused."""
    special = set(_special_texts(config))
    found: dict[str, AddedToken] = {}
    for token_id, entry in (*_listed(tokenizer), *_listed_by_id(config)):
        token = _added(token_id, entry, special)
        known = found.setdefault(token.text, token)
        if known.id != token.id:
            raise ModelRefused(f"the tokenizer's files give {token.text[:60]!r} two ids, {known.id} and {token.id}")
    if len({token.id for token in found.values()}) < len(found):
        raise ModelRefused("two added tokens of the tokenizer have one id; download the model again")
    return tuple(found.values())


def text_of(entry: object) -> str | None:
    """`bos_token` and its like: a text, or an object that holds one."""
    if isinstance(entry, dict):
        entry = cast("Table", entry).get("content")
    return entry if isinstance(entry, str) and entry else None


def end_ids(folder: Path, n_ids: int) -> frozenset[int]:
    """The ids that end an answer, as generation_config.json and config.json list them."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        listed = (read_table(folder, name) or {}).get("eos_token_id")
        entries = cast("list[object]", listed) if isinstance(listed, list) else [listed]
        found |= {entry for entry in entries if type(entry) is int and 0 <= entry < n_ids}
    return frozenset(found)


def _listed(tokenizer: Table) -> Iterator[tuple[object, object]]:
    entries: object = tokenizer.get("added_tokens") or []
    if not isinstance(entries, list):
        raise ModelRefused("the tokenizer's added_tokens are no list; download the model again")
    for entry in cast("list[object]", entries):
        yield (cast("Table", entry).get("id") if isinstance(entry, dict) else None), entry


def _listed_by_id(config: Table) -> Iterator[tuple[object, object]]:
    entries: object = config.get("added_tokens_decoder") or {}
    if isinstance(entries, dict):
        for key, entry in cast("Mapping[str, object]", entries).items():
            yield (int(key) if key.isascii() and key.isdigit() and len(key) < 10 else None), entry


def _special_texts(config: Table) -> Iterator[str]:
    listed: object = config.get("additional_special_tokens") or []
    entries = cast("list[object]", listed) if isinstance(listed, list) else []
    for entry in (*entries, *(config.get(f"{name}_token") for name in ("bos", "eos", "pad"))):
        if text := text_of(entry):
            yield text


def _added(token_id: object, entry: object, special: set[str]) -> AddedToken:
    fields = cast("Table", entry) if isinstance(entry, dict) else {}
    text = text_of(fields)
    if text is None or type(token_id) is not int or not 0 <= token_id < 1 << 31:
        raise ModelRefused("an added token of the tokenizer has no text or no id; download the model again")
    if len(text) > _MAX_MARKER:
        raise ModelRefused(f"an added token of the tokenizer is {len(text)} characters long")
    is_special = bool(fields.get("special")) or text in special
    return AddedToken(token_id, text, is_special, bool(fields.get("lstrip")), bool(fields.get("rstrip")))
