"""The size of a prompt for servers that cannot be asked: an estimate, and never shown as measured."""

import msgspec

from anyclaude.backends.seam import Turn
from anyclaude.prompt.canonical import canonical

CHARACTERS_PER_TOKEN = 4


def estimate_tokens(turn: Turn) -> int:
    """Characters of the canonical prompt by four."""
    return -(-len(msgspec.json.encode(canonical(turn.request))) // CHARACTERS_PER_TOKEN)
