"""The model a request is answered by: every name gets an answer, side requests included."""

from anyclaude.backends.chat import ChatBackend
from anyclaude.backends.http import Clients
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.native import NativeBackend
from anyclaude.backends.seam import Backend, Target


def choose_model(target: Target, asked: str) -> str:
    """A name that the server has stands for itself, any other for the session's model."""
    if asked in target.models or target.model is None:
        return asked
    return target.model


def backend_for(target: Target, clients: Clients) -> Backend:
    if KINDS[target.kind].speaks == "anthropic":
        return NativeBackend(target, clients)
    return ChatBackend(target, clients)
