"""Answers that follow a JSON schema by construction: llguidance says at each token which ones may come next."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import msgspec
import numpy as np
from llguidance import LLMatcher, LLTokenizer

# A weak model that may put blanks anywhere puts them for ever.
_STRICT: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LENIENT: Any = _STRICT | {"lenient": True}


class Grammars:
    """One model's grammars. The tokenizer is built on first use: it takes a while."""

    def __init__(self, folder: Path, eos_ids: Collection[int]) -> None:
        self._folder = folder
        self.eos_ids = list(eos_ids)
        self._tokenizer: LLTokenizer | None = None

    def of_schema(self, schema: dict[str, Any]) -> LLMatcher:
        """What of a schema cannot be expressed is left open. Raises ValueError for what is none."""
        if self._tokenizer is None:
            self._tokenizer = LLTokenizer(str(self._folder / "tokenizer.json"), eos_token=self.eos_ids or None)
        try:
            text = msgspec.json.encode(schema).decode()
        except RecursionError:
            raise ValueError("the schema is nested too deeply") from None
        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(text, defaults=_STRICT), log_level=0)
        if matcher.is_error():
            lenient = LLMatcher.grammar_from_json_schema(text, defaults=_LENIENT)
            matcher = LLMatcher(self._tokenizer, lenient, log_level=0)
        if matcher.is_error():
            raise ValueError((matcher.get_error().splitlines() or ["unknown"])[0])
        return matcher


class Constraint:
    """A logits processor that allows only what the grammar does, and where that ends, only the end of the answer.
    `after` is a token that it waits for: the end of reasoning, which is free; None where it holds from the start.
    `eos_ids` end an answer even where they are words: they wait until the grammar is through."""

    def __init__(self, matcher: LLMatcher, after: int | None, eos_ids: Collection[int] = ()) -> None:
        self._matcher = matcher
        self._eos_ids = list(eos_ids)
        self._after = after
        self._is_first = True

    def __call__(self, tokens: mx.array, logits: mx.array) -> mx.array:
        if self._is_first:
            self._is_first = False  # the last token of the prompt
        else:
            self._consume(int(cast("int", tokens[-1].item())))
        if self._after is not None or self._matcher.is_error():
            return logits
        allowed = self._allowed(logits.shape[-1])
        return mx.where(mx.array(cast("Any", allowed)), logits, mx.array(-float("inf"), logits.dtype))

    def _consume(self, token: int) -> None:
        if self._after is None:
            self._matcher.consume_token(token)
        elif token == self._after:
            self._after = None

    def _allowed(self, n_logits: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        allowed = np.zeros(n_logits, np.bool_)
        n = min(n_logits, len(bits))
        allowed[:n] = bits[:n]
        if not self._matcher.is_accepting():
            allowed[[each for each in self._eos_ids if each < n_logits]] = False
        return allowed
