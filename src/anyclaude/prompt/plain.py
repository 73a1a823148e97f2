"""A request as the client wrote it, with nothing moved and only blocks of our own left out: what servers that speak the
Messages API themselves get, and what a plain translation would send."""

from anyclaude.prompt.canonical import Prompt, late_tools
from anyclaude.prompt.head import is_listed
from anyclaude.prompt.lasting import without_own
from anyclaude.wire.messages import MessagesRequest


def plain(request: MessagesRequest, *, defers_tools: bool = False) -> Prompt:
    """Every tool at the head, in the client's order, and `system` messages where they stood. A server that
    `defers_tools` keeps those that the client defers out of the head, and writes them where they are referred to."""
    tools = tuple(tool for tool in request.tools if not tool.is_server_tool)
    head = tuple(tool for tool in tools if is_listed(tool)) if defers_tools else tools
    messages = without_own(request.messages)
    late = late_tools(tools, head, messages)
    return Prompt(tools=head, system=request.system, messages=messages, late_tools=late)
