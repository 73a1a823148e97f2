"""A conversation to try a chat template with: what it drops of this one, it drops of others."""

from collections import Counter
from typing import Literal

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.probe import vanished
from anyclaude.prompt.sections import sections_of
from anyclaude.wire.blocks import Block, TextBlock, ThinkingBlock, ToolResultBlock, ToolUseBlock
from anyclaude.wire.messages import Message, Tool


def specimen() -> Prompt:
    """A section of every usual kind, each with words of its own. The tool that is called is not the one that is listed,
    so that neither stands for the other; one thought belongs to an earlier turn, one to the turn under way."""
    schema = {"type": "object", "properties": {"depth": {"type": "integer"}}, "required": ["depth"]}
    return Prompt(
        tools=(Tool("probe_the_well", "Tells how deep the well is.", schema),),
        system=("Answer as the keeper of the well.",),
        preamble=("The well stands behind the mill.",),
        messages=(
            _said("user", TextBlock("Is there water today?")),
            _said("assistant", ThinkingBlock("It rained on Monday."), TextBlock("There should be.")),
            _said("user", TextBlock("Lower the bucket, please.")),
            _said(
                "assistant",
                ThinkingBlock("The rope is long enough."),
                ToolUseBlock("toolu_probe", "lower_the_bucket", {"depth": 9}),
            ),
            _said("user", ToolResultBlock("toolu_probe", (TextBlock("The bucket came up full."),))),
        ),
    )


def _said(role: Literal["user", "assistant"], *blocks: Block) -> Message:
    return Message(role, blocks)


def left_out(prompt: Prompt, rendering: str) -> tuple[str, ...]:
    """The kinds of section that the rendering lacks, wholly or in part, for a person to read."""
    n_all = Counter(section.kind for section in sections_of(prompt))
    n_gone = Counter(section.kind for section in vanished(prompt, rendering))
    return tuple(kind if n == n_all[kind] else f"some {kind}" for kind, n in n_gone.items())
