"""The seam to every model server: `Backend.open(turn)` gives the answer's events, `count` the prompt's size."""

from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.sections import Section
from anyclaude.wire.events import Event
from anyclaude.wire.frames import RequestClass
from anyclaude.wire.messages import MessagesRequest


class Target(Struct, frozen=True, kw_only=True):
    """The server that one launch chose; of kind `mlx` it is the gateway's own engine, `base_url` is "engine" and
    `model` a folder. `api_key` is written to the session's own 0600 file only.

    `models` are the names it may be asked for; `is_model_chosen` where the person named one; `context_window` and
    `max_output_tokens` are in tokens, None where nobody told; so is `takes_images`. `engine_options`
    are settings of the engine, which the first session that needs it starts.
    """

    kind: str
    base_url: str
    model: str | None = None
    is_model_chosen: bool = False
    models: tuple[str, ...] = ()
    api_key: str | None = None
    context_window: int | None = None
    max_output_tokens: int | None = None
    takes_images: bool | None = None
    silence_s: float = 1500.0
    engine_options: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"Target({self.kind} at {self.base_url or 'this gateway'}, model {self.model})"


class Origin(Struct, frozen=True):
    """Whose request it is, for what schedules and keeps by it. `ahead` names the launches whose prompts begin alike,
    and is empty where the prompt is none that a launch begins with."""

    request_class: RequestClass = "main"
    ahead: str = ""
    is_private: bool = False


MAIN = Origin()


class Turn(Struct, frozen=True, kw_only=True):
    """One request on its way: `prompt` is what the model is to read, `sections` the same in parts, `body` the JSON as
    the client sent it, `model` the server's name for the model."""

    request: MessagesRequest
    prompt: Prompt
    sections: tuple[Section, ...]
    body: bytes
    model: str
    message_id: str
    betas: str | None = None
    origin: Origin = MAIN


class Progress(Struct, frozen=True):
    """Prompt tokens read so far, as the server told."""

    n_read: int
    n_total: int


class Count(Struct, frozen=True):
    """Prompt tokens; `is_measured` only where the server itself counted."""

    tokens: int
    is_measured: bool


Item = Event | Progress


class Backend(Protocol):
    """One server. Closing the iterator of `open` early closes the connection, so that the server stops working.

    The first item comes only once the server is known to work on the request. Both raise ApiError: before the first
    item it can still become an HTTP status, after it an `error` event.
    """

    def open(self, turn: Turn) -> AsyncIterator[Item]: ...

    async def count(self, turn: Turn) -> Count: ...
