"""What one kind of server wants and understands, as plain facts that the translation reads."""

from typing import Any, Literal

from msgspec import Struct

from anyclaude.prompt.policy import Policy

SchemaRule = Literal["meta", "refs", "nullable", "format", "pattern"]


class Profile(Struct, frozen=True, kw_only=True):
    """The defaults are a plain OpenAI-compatible server.

    sends_model           False leaves `model` out: mlx_lm.server then keeps the model that it has loaded
    max_tokens_field      the name of the output limit
    reasoning_field       where earlier reasoning goes in the history; None leaves it out
    takes_images          image parts are sent; else a note stands in their place
    takes_tool_choice     `tool_choice` and `parallel_tool_calls` are sent
    takes_named_tool_choice  False asks for "required" where one tool is named
    takes_json_schema     `response_format: json_schema` is sent
    takes_top_k           `top_k` is sent
    policy                what the model's template can take, as far as the kind of server decides it
    schema_rules          rewrites that tool schemas need, see translate.schema
    thinking_off          fields that turn reasoning off
    effort_field          where `output_config.effort` goes: nowhere, `reasoning_effort` or `reasoning.effort`
    stream_fields         fields that every streamed request carries
    """

    sends_model: bool = True
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reasoning_field: Literal["reasoning", "reasoning_content"] | None = None
    takes_images: bool = True
    takes_tool_choice: bool = True
    takes_named_tool_choice: bool = True
    takes_json_schema: bool = True
    takes_top_k: bool = False
    policy: Policy = Policy()
    schema_rules: frozenset[SchemaRule] = frozenset({"meta"})
    thinking_off: dict[str, Any] = {}
    effort_field: Literal["reasoning_effort", "reasoning.effort"] | None = None
    stream_fields: dict[str, Any] = {}
