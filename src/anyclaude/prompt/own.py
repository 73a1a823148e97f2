"""Blocks that anyclaude itself adds to a stream, and how they are known when the client sends them back.

Only a thinking block can be added: the client shows it, keeps it in the history and never takes it for the answer. Its
signature holds a digest of its text, so that a block is ours only as a whole and unchanged.
"""

import hashlib

from anyclaude.wire.blocks import Block, ThinkingBlock

OWN_MARK = "anyclaude:"


def own_signature(text: str) -> str:
    """The signature to send with a thinking block of ours."""
    return OWN_MARK + hashlib.sha256(text.encode()).hexdigest()


def is_own(block: Block) -> bool:
    if not isinstance(block, ThinkingBlock) or not block.signature.startswith(OWN_MARK):
        return False
    return block.signature == own_signature(block.thinking)
