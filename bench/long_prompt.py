"""What is asked of the model servers: a long system prompt of made-up text, and questions that nobody can answer."""

import random
from pathlib import Path

from tokenizers import Tokenizer

N_TOKENS = 18_490
_WORDS = (
    "shelf", "bolt", "plate", "spring", "label", "row", "count", "take", "put", "ask", "never", "always", "before",
    "after", "each", "drawer", "42", "def", "return", "import", "(part)", "[size]", "must", "may", "list", "order",
)  # fmt: skip
_OPENINGS = ("Which", "How", "Where", "Name", "Tell", "List", "Count", "Find", "Show", "Give")


def system_prompt(model: Path, n_tokens: int = N_TOKENS) -> str:
    """The same text in every run. The model's own tokenizer makes exactly so many tokens of it."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = _filler(n_tokens * 8)
    text = tokenizer.decode(tokenizer.encode(text).ids[: n_tokens - 8]).rstrip() + "."
    while (n_missing := n_tokens - _count(tokenizer, text)) > 0:
        text += " a" * n_missing
    assert n_missing == 0, "the last words made more tokens than were missing"
    return text


def count_head(model: Path, system: str) -> int:
    """Tokens of a prompt with this system text up to the person's words, by the demo model's own template."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return _count(tokenizer, f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n")


def question(conversation: int, n: int) -> str:
    """No two begin with the same word: neither of one conversation, nor the first ones of two."""
    opening = _OPENINGS[(conversation * 3 + n) % len(_OPENINGS)]
    words = _filler(120, seed=1000 + 100 * conversation + n).replace("\n", " ")
    return f"{opening}, for part {conversation}.{n}: {words}?"


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text).ids)


def _filler(n_characters: int, seed: int = 7) -> str:
    chance = random.Random(seed)
    lines: list[str] = []
    while n_characters > 0:
        lines.append(" ".join(chance.choices(_WORDS, k=chance.randint(6, 14))))
        n_characters -= len(lines[-1]) + 1
    return "\n".join(lines)
