"""Which tool call a streamed piece belongs to. Servers differ: some leave out the index or the id, some
number every call 0, some send arguments as an object instead of text."""

from collections.abc import Callable

import msgspec

from anyclaude.wire.openai import ToolCallDelta


class Call:
    """One call as far as it has arrived. `id` is ours: servers repeat theirs from turn to turn."""

    def __init__(self, call_id: str, index: int | None, server_id: str | None) -> None:
        self.id = call_id
        self.index = index
        self.server_id = server_id
        self.name: str | None = None
        self.is_written = False
        self.is_closed = False
        self._arguments: list[str] = []
        self._unwritten = ""

    def add(self, delta: ToolCallDelta) -> None:
        self.server_id = self.server_id or delta.id
        if delta.function is None:
            return
        self.name = self.name or delta.function.name or None
        arguments = delta.function.arguments
        text = msgspec.json.encode(arguments).decode() if isinstance(arguments, dict) else arguments or ""
        self._arguments.append(text)
        self._unwritten += text

    def take(self) -> str:
        """The arguments that were not taken before, to be written now."""
        text, self._unwritten, self.is_written = self._unwritten, "", True
        return text

    def is_complete(self) -> bool:
        """The arguments so far are whole JSON. Costs a decode: ask only where something else waits."""
        try:
            msgspec.json.decode("".join(self._arguments))
        except msgspec.DecodeError:
            return False
        return True


class CallTable:
    """All calls of one answer, in the order in which they began."""

    def __init__(self, new_call_id: Callable[[str | None], str]) -> None:
        self._new_call_id = new_call_id
        self._calls: list[Call] = []

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def unwritten(self) -> list[Call]:
        """Calls whose name never came."""
        return [call for call in self._calls if not call.is_written]

    def resolve(self, delta: ToolCallDelta) -> Call:
        """The call that this piece continues, or a new one."""
        known = self._continued(delta)
        if known is not None and not _begins_another(known, delta):
            return known
        call = Call(self._new_call_id(delta.id), delta.index, delta.id)
        self._calls.append(call)
        return call

    def _continued(self, delta: ToolCallDelta) -> Call | None:
        if delta.id:
            for call in reversed(self._calls):
                if call.server_id == delta.id and delta.index in (None, call.index):
                    return call
        if delta.index is not None:
            return next((call for call in reversed(self._calls) if call.index == delta.index), None)
        return self._calls[-1] if self._calls else None


def _begins_another(call: Call, delta: ToolCallDelta) -> bool:
    if delta.id and call.server_id and delta.id != call.server_id:
        return True
    names_again = bool(delta.function and delta.function.name and call.name)
    return names_again and not delta.id and call.is_complete()
