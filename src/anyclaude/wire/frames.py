"""Frames between the server and its engine: four bytes of big-endian length, then one msgpack value with a `type`.

Every request has an id of the server's, which whatever answers it carries too. It ends with exactly one of `Finished`,
`Counted`, `Loaded`, `Told` or `Failed`; `Began`, `Prefilled`, `Piece`, `CallPiece` and `Loading` come before that.
"""

import struct
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

MAX_FRAME = 256 << 20
_LENGTH = struct.Struct(">I")

RequestClass = Literal["main", "agent", "side"]
FinishReason = Literal["stop", "length", "tool_calls", "stop_sequence", "window"]
AskWhat = Literal[
    "statistics",
    "models",
    "unload",
    "cache.ls",
    "cache.pin",
    "cache.unpin",
    "cache.rm",
    "cache.clear",
    "cache.verify",
    "selftest",
]
Failure = Literal["invalid", "too_long", "missing", "refused", "overloaded", "failed"]


class Call(Struct, frozen=True):
    """`arguments` is JSON text."""

    id: str
    name: str
    arguments: str


class Turn(Struct, frozen=True, omit_defaults=True):
    """One message as chat templates know them. `signature` is what the answer's reasoning was signed with."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    reasoning: str = ""
    signature: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""


class Chat(Struct, frozen=True, omit_defaults=True):
    """What a model is to read. `tools` are OpenAI function definitions; `thinks` None: the request does not say."""

    turns: tuple[Turn, ...]
    tools: tuple[dict[str, Any], ...] = ()
    thinks: bool | None = None


class Sampling(Struct, frozen=True, omit_defaults=True):
    """None is the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None


class Load(Struct, frozen=True, tag="load"):
    """`model` is a folder."""

    id: int
    model: str


class Generate(Struct, frozen=True, tag="generate", omit_defaults=True):
    """`ahead` names whose prompts begin alike (project and entry point): what is loaded before the next is asked."""

    id: int
    model: str
    chat: Chat
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_sequences: tuple[str, ...] = ()
    json_schema: dict[str, Any] | None = None
    request_class: RequestClass = "main"
    ahead: str = ""
    is_private: bool = False


class CountTokens(Struct, frozen=True, tag="count"):
    id: int
    model: str
    chat: Chat


class Prepare(Struct, frozen=True, tag="prepare"):
    """Ahead of the user: the prefix that `ahead` began with last is loaded, or computed while nothing else runs."""

    id: int
    model: str
    ahead: str


class Cancel(Struct, frozen=True, tag="cancel"):
    """Nothing answers it; what was asked under `id` is no longer wanted."""

    id: int


class Ask(Struct, frozen=True, tag="ask", omit_defaults=True):
    """Management. `what` is a command of the cache or of the models, `names` its operands."""

    id: int
    what: AskWhat
    names: tuple[str, ...] = ()


class Ready(Struct, frozen=True, tag="ready"):
    """The first frame that an engine sends."""

    version: str
    mlx: str
    device: str


class Capabilities(Struct, frozen=True, omit_defaults=True):
    """What one loaded model's template and files tell. `window` in tokens; `alternates`, `one_call`, `nine_ids` and
    `system_in_user` are what the prompt must be fitted to; `classes` and `loses` describe the template to a person."""

    window: int
    alternates: bool = False
    one_call: bool = False
    nine_ids: bool = False
    system_in_user: bool = False
    thinks: bool = False
    calls_tools: bool = False
    classes: tuple[str, ...] = ()
    loses: tuple[str, ...] = ()


class Loading(Struct, frozen=True, tag="loading"):
    id: int
    what: str


class Loaded(Struct, frozen=True, tag="loaded"):
    id: int
    capabilities: Capabilities


class Began(Struct, frozen=True, tag="began", omit_defaults=True):
    """Prompt tokens, and how many of them are not computed again. `signature` is what the answer's reasoning will be
    signed with: the client wants it at the end of the reasoning, long before the answer ends."""

    id: int
    n_prompt: int
    n_cached: int
    signature: str = ""


class Prefilled(Struct, frozen=True, tag="prefilled"):
    id: int
    n_read: int
    n_total: int


class Piece(Struct, frozen=True, tag="piece"):
    id: int
    kind: Literal["text", "thinking"]
    text: str


class CallPiece(Struct, frozen=True, tag="call"):
    """The first piece of a call has its id and name; `index` counts the calls of one answer."""

    id: int
    index: int
    arguments: str
    call_id: str = ""
    name: str = ""


class Finished(Struct, frozen=True, tag="finished", omit_defaults=True):
    """`n_prefilled` were computed for this turn, `n_out` generated."""

    id: int
    reason: FinishReason
    n_prompt: int
    n_cached: int
    n_prefilled: int
    n_out: int
    stop_sequence: str | None = None


class Counted(Struct, frozen=True, tag="counted"):
    id: int
    n_tokens: int


class Told(Struct, frozen=True, tag="told"):
    id: int
    value: dict[str, Any]


class Failed(Struct, frozen=True, tag="failed", omit_defaults=True):
    """`too_long` has the prompt's tokens, the window and, where the prompt alone would fit, the wanted output."""

    id: int
    kind: Failure
    message: str
    n_prompt: int = 0
    window: int = 0
    max_tokens: int = 0


Request = Load | Generate | CountTokens | Prepare | Cancel | Ask
Report = Ready | Loading | Loaded | Began | Prefilled | Piece | CallPiece | Finished | Counted | Told | Failed

_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_reports = msgspec.msgpack.Decoder(Report)


class BadFrame(ValueError):
    """Bytes that are no frame: the other side is another version, or broken."""


def encode_frame(frame: Request | Report) -> bytes:
    body = _encoder.encode(frame)
    if len(body) > MAX_FRAME:
        raise BadFrame(f"a frame of {len(body)} bytes is too large")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Bytes in any pieces to whole frame bodies."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises BadFrame."""
        self._data += data
        at = 0
        while len(self._data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data, at)
            if length > MAX_FRAME:
                raise BadFrame(f"a frame of {length} bytes is announced")
            end = at + _LENGTH.size + length
            if len(self._data) < end:
                break
            yield bytes(self._data[at + _LENGTH.size : end])
            at = end
        del self._data[:at]


def decode_request(body: bytes) -> Request:
    """Raises BadFrame."""
    try:
        return _requests.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame(str(error)) from None


def decode_report(body: bytes) -> Report:
    """Raises BadFrame."""
    try:
        return _reports.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame(str(error)) from None
