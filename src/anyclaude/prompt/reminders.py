"""Words of the system inside a user turn, marked as the client itself marks them."""

from anyclaude.wire.blocks import Block, TextBlock

REMINDER_OPEN = "<system-reminder>"
REMINDER_CLOSE = "</system-reminder>"


def reminder(text: str) -> TextBlock:
    return TextBlock(f"{REMINDER_OPEN}\n{text}\n{REMINDER_CLOSE}")


def is_reminder(block: Block) -> bool:
    """Known by its beginning alone."""
    return isinstance(block, TextBlock) and block.text.startswith(REMINDER_OPEN)
