"""A request as the client wrote it, with nothing moved and only blocks of our own left out: what servers that speak the
Messages API themselves get, and what a plain translation would send."""

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.lasting import without_own
from anyclaude.wire.messages import MessagesRequest


def plain(request: MessagesRequest) -> Prompt:
    """Every tool at the head, in the client's order, and `system` messages where they stood."""
    tools = tuple(tool for tool in request.tools if not tool.is_server_tool)
    return Prompt(tools=tools, system=request.system, messages=without_own(request.messages))
