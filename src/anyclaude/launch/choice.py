"""What a launch has chosen: the server or the engine, the model, and what the client is told of it."""

from msgspec import Struct

from anyclaude.backends.seam import Target

ASSUMED_WINDOW = 65_536
SMALL_WINDOW = 24_000
_SMALLEST_OUTPUT, _LARGEST_OUTPUT = 4096, 32_000


class Choice(Struct, frozen=True):
    """`model` is the name that the client shows, None for its own choice; `window` is what it is told to
    reckon with, in tokens; `notes` are for the person."""

    target: Target
    model: str | None
    window: int
    notes: tuple[str, ...] = ()


def output_limit(window: int, told: int | None) -> int:
    """Tokens of one answer: an eighth of the window within bounds, or less if the server says so. The client compacts
    at window - min(20000, this) - 3000, so a large limit would leave a small window no room."""
    limit = max(_SMALLEST_OUTPUT, min(_LARGEST_OUTPUT, window // 8))
    return min(limit, told) if told else limit


def small_window_note(window: int) -> str:
    return f"a context window of {window:,} tokens is small: Claude Code's own prompt takes about 14,000"
