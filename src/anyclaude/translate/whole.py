"""A stream's events put together into one Message, for clients that asked for it in one piece."""

from typing import Any, cast

import msgspec

from anyclaude.wire.events import Event, Foreign

Fields = dict[str, Any]


class MessageCollector:
    """`add` every event, then read `message`. Unknown deltas leave their fields on the block."""

    def __init__(self) -> None:
        self.message: Fields = {}
        self._arguments = ""

    def add(self, event: Event) -> None:
        fields = _fields(event)
        match fields.get("type"):
            case "message_start":
                self.message = dict(fields["message"]) | {"content": []}
            case "content_block_start":
                self._arguments = ""
                self._content.append(dict(fields["content_block"]))
            case "content_block_delta":
                self._delta(fields["delta"])
            case "content_block_stop":
                self._stop()
            case "message_delta":
                self.message |= fields.get("delta") or {}
                self.message["usage"] = (self.message.get("usage") or {}) | (fields.get("usage") or {})
            case _:
                pass

    @property
    def _content(self) -> list[Fields]:
        return cast("list[Fields]", self.message["content"])

    def _delta(self, delta: Fields) -> None:
        block = self._content[-1]
        match delta["type"]:
            case "text_delta":
                block["text"] += delta["text"]
            case "thinking_delta":
                block["thinking"] += delta["thinking"]
            case "input_json_delta":
                self._arguments += delta["partial_json"]
            case "citations_delta":
                block["citations"] = [*(block.get("citations") or []), delta["citation"]]
            case _:
                block |= {key: value for key, value in delta.items() if key != "type"}

    def _stop(self) -> None:
        if self._arguments:
            self._content[-1]["input"] = _arguments(self._arguments)
            self._arguments = ""


def _fields(event: Event) -> Fields:
    if isinstance(event, Foreign):
        return cast("Fields", msgspec.json.decode(event.data))
    return cast("Fields", msgspec.to_builtins(event))


def _arguments(text: str) -> Any:
    """Arguments that are not JSON are passed on in the form that the client itself uses for them."""
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return {"__unparsedToolInput": {"raw": text, "len": len(text)}}
