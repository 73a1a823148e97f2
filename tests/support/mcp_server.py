"""A small MCP server over stdio whose list of tools grows while it runs: `mcp_server.py FILE [DESCRIBED CALLED]`.

`grow` adds the tool `newcomer`, says that the list changed, and answers only when the client has read the new list. It
is remembered in FILE: a server that starts later lists both from its beginning. DESCRIBED and CALLED are words of the
test's own, in each tool's description and in each answer.
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(file: Path, described: str = "", called: str = "") -> None:
    waiting: Any = None
    for line in sys.stdin:
        message = json.loads(line)
        number, method = message.get("id"), message.get("method")
        if method == "initialize":
            _answer(number, _about(message["params"]["protocolVersion"]))
        elif method == "tools/list":
            names = ["grow", "newcomer"] if file.exists() else ["grow"]
            _answer(number, {"tools": [_tool(name, described) for name in names]})
            if waiting is not None:
                _answer(waiting, _text("there is a newcomer"))
                waiting = None
        elif method == "tools/call" and message["params"]["name"] == "grow" and not file.exists():
            file.touch()
            waiting = number
            _send({"method": "notifications/tools/list_changed"})
        elif method == "tools/call":
            _answer(number, _text(f"{message['params']['name']} was called{called}"))
        elif number is not None:
            _answer(number, {})


def _about(version: str) -> dict[str, Any]:
    server = {"name": "growing", "version": "1"}
    return {"protocolVersion": version, "capabilities": {"tools": {"listChanged": True}}, "serverInfo": server}


def _tool(name: str, described: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {}}
    return {"name": name, "description": f"The tool {name}.{described}", "inputSchema": schema}


def _text(words: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}]}


def _answer(number: Any, result: dict[str, Any]) -> None:
    _send({"id": number, "result": result})


def _send(message: dict[str, Any]) -> None:
    print(json.dumps({"jsonrpc": "2.0"} | message), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:4])
