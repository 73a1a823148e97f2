"""The model a request is answered by: every name gets an answer, side requests included."""

import secrets

from anyclaude.backends.chat import ChatBackend
from anyclaude.backends.engine import EngineBackend
from anyclaude.backends.engine_process import EngineProcess
from anyclaude.backends.http import Clients
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.knowledge import Knowledge
from anyclaude.backends.native import NativeBackend
from anyclaude.backends.seam import MAIN, Backend, Origin, Target, Turn
from anyclaude.errors import BackendFailed
from anyclaude.prompt.canonical import Prompt, canonical
from anyclaude.prompt.head import Head
from anyclaude.prompt.plain import plain
from anyclaude.prompt.sections import Section, sections_of
from anyclaude.wire.messages import MessagesRequest


def choose_model(target: Target, asked: str) -> str:
    """A name that the server has stands for itself, any other for the session's model."""
    if asked in target.models or target.model is None:
        return asked
    return target.model


def backend_for(target: Target, clients: Clients, knowledge: Knowledge, engine: EngineProcess | None = None) -> Backend:
    """`engine` is the gateway's own. Raises BackendFailed where the target needs it and there is none."""
    match KINDS[target.kind].speaks:
        case "engine":
            if engine is None:
                raise BackendFailed("this gateway runs no engine", retry=False)
            return EngineBackend(target, engine, knowledge)
        case "anthropic":
            return NativeBackend(target, clients, knowledge)
        case "openai":
            return ChatBackend(target, clients, knowledge)


def prompt_for(target: Target, request: MessagesRequest, head: Head | None) -> Prompt:
    """What that backend makes the model read: a server that speaks the Messages API gets the client's own form."""
    kind = KINDS[target.kind]
    if kind.speaks == "anthropic":
        return plain(request, defers_tools=kind.profile.policy.late_tools == "expand")
    return canonical(request, head)


def sections_for(target: Target, prompt: Prompt) -> tuple[Section, ...]:
    """In the order in which that backend's model reads them."""
    return sections_of(prompt, lists_late_tools=KINDS[target.kind].profile.policy.late_tools == "list")


def turn_for(
    target: Target,
    request: MessagesRequest,
    head: Head | None,
    *,
    body: bytes,
    model: str,
    betas: str | None,
    origin: Origin = MAIN,
) -> Turn:
    """The request on its way to that backend, with an id of its own for the answer."""
    prompt = prompt_for(target, request, head)
    return Turn(
        request=request,
        prompt=prompt,
        sections=sections_for(target, prompt),
        body=body,
        model=model,
        message_id=f"msg_{secrets.token_hex(12)}",
        betas=betas,
        origin=origin,
    )
