"""Whose turn it is, as the engine schedules and keeps by it: read from the client's own headers."""

import hashlib

from anyclaude.backends.seam import Origin
from anyclaude.server.turn import Labels
from anyclaude.wire.frames import RequestClass

# The client's hint headers (2.1.330): main, subagent, workflow, compaction, auxiliary.
_CLASSES: dict[str, RequestClass] = {"subagent": "agent", "workflow": "agent", "auxiliary": "side"}


def origin_of(labels: Labels) -> Origin:
    """What a sub-agent or a title begins with is not what the next launch will: only main requests are `ahead`."""
    request_class = class_of(labels)
    begins = ahead_of(labels.project, labels.entrypoint) if request_class == "main" else ""
    return Origin(request_class, begins, labels.is_private)


def class_of(labels: Labels) -> RequestClass:
    """A summary that the client asks for has the conversation's own prompt, so it is one of its main requests."""
    if labels.agent is not None:
        return "agent"
    return _CLASSES.get(labels.request_class or "", "main")


def ahead_of(project: str, entrypoint: str | None) -> str:
    """The same for all launches in one folder that start the client in the same way: their prompts begin alike."""
    return hashlib.sha256(f"{entrypoint or ''}\0{project}".encode()).hexdigest()[:16]
