"""A turn as the embedded engine is asked for it: what its model is to read, and how it is to answer."""

from typing import Any

import msgspec

from anyclaude.backends.kinds import KINDS
from anyclaude.backends.seam import Target, Turn
from anyclaude.errors import InvalidRequest
from anyclaude.prompt.canonical import Prompt
from anyclaude.prompt.policy import Policy, fitted
from anyclaude.translate.content import tool_definition
from anyclaude.translate.profile import Profile
from anyclaude.translate.request import chat_messages
from anyclaude.translate.schema import rewrite_schema
from anyclaude.wire import frames
from anyclaude.wire.blocks import ThinkingBlock
from anyclaude.wire.frames import Capabilities, Chat, CountTokens, Generate, Sampling
from anyclaude.wire.messages import Message, MessagesRequest, Tool
from anyclaude.wire.openai import ChatMessage


def policy_of(capabilities: Capabilities) -> Policy:
    return Policy(
        late_tools="expand",
        system="user" if capabilities.system_in_user else "head",
        alternates=capabilities.alternates,
        one_call=capabilities.one_call,
        call_ids="nine" if capabilities.nine_ids else "any",
    )


def chat_of(prompt: Prompt, request: MessagesRequest, capabilities: Capabilities) -> Chat:
    """Raises InvalidRequest."""
    try:
        return _chat_of(prompt, request, capabilities)
    except RecursionError:
        raise InvalidRequest("tools: a schema is nested too deeply") from None


def _chat_of(prompt: Prompt, request: MessagesRequest, capabilities: Capabilities) -> Chat:
    profile = msgspec.structs.replace(KINDS["mlx"].profile, policy=policy_of(capabilities))
    prompt = fitted(prompt, profile.policy)
    signatures = (_signature(message) for message in prompt.messages if message.role == "assistant")
    return Chat(
        turns=tuple(
            _turn(message, next(signatures) if message.role == "assistant" else "")
            for message in chat_messages(prompt, profile)
        ),
        tools=tuple(_tool(tool, profile) for tool in prompt.tools),
        thinks=_thinks(request),
    )


def generation(turn: Turn, target: Target, capabilities: Capabilities) -> Generate:
    request, origin = turn.request, turn.origin
    wanted, most = request.max_tokens, target.max_output_tokens
    limits = [limit for limit in (wanted, most) if limit is not None]
    return Generate(
        id=0,
        model=turn.model,
        chat=chat_of(turn.prompt, request, capabilities),
        max_tokens=min(limits, default=capabilities.window),
        sampling=Sampling(request.temperature, request.top_p, request.top_k),
        stop_sequences=request.stop_sequences,
        json_schema=_json_schema(request),
        request_class=origin.request_class,
        ahead=origin.ahead,
        is_private=origin.is_private,
    )


def counting(turn: Turn, capabilities: Capabilities) -> CountTokens:
    return CountTokens(id=0, model=turn.model, chat=chat_of(turn.prompt, turn.request, capabilities))


def _turn(message: ChatMessage, signature: str) -> frames.Turn:
    assert isinstance(message.content, str), "images are notes for a model that reads text"
    return frames.Turn(
        role=message.role,
        content=message.content,
        reasoning=message.reasoning_content or "",
        signature=signature,
        calls=tuple(frames.Call(call.id, call.function.name, call.function.arguments) for call in message.tool_calls),
        call_id=message.tool_call_id or "",
    )


def _signature(message: Message) -> str:
    """By which the engine knows an answer of its own again."""
    found = (block.signature for block in message.content if isinstance(block, ThinkingBlock) and block.signature)
    return next(found, "")


def _tool(tool: Tool, profile: Profile) -> dict[str, Any]:
    parameters = rewrite_schema(tool.input_schema or {}, profile.schema_rules)
    return {"type": "function", "function": tool_definition(tool, parameters)}


def _thinks(request: MessagesRequest) -> bool | None:
    return None if request.thinking is None else request.thinking.type != "disabled"


def _json_schema(request: MessagesRequest) -> dict[str, Any] | None:
    wanted = request.output_config.format
    if wanted is None or wanted.json_schema is None:
        return None
    return rewrite_schema(wanted.json_schema, KINDS["mlx"].profile.schema_rules)
