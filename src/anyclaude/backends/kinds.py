"""The kinds of server: where each usually listens, what it speaks, what it wants. One row a mode."""

from typing import Literal

from msgspec import Struct

from anyclaude.prompt.policy import Policy
from anyclaude.translate.profile import Profile

Tried = Literal["server", "transcript"]


class Kind(Struct, frozen=True, kw_only=True):
    """`tried` says how far this mode was tested: against the real server, or transcripts of its format."""

    name: str
    title: str
    speaks: Literal["openai", "anthropic", "engine"]
    ports: tuple[int, ...] = ()
    base_url: str | None = None
    tried: Tried
    profile: Profile = Profile()
    hint: str
    needs_key: bool = False

    @property
    def default_url(self) -> str | None:
        if self.base_url is not None:
            return self.base_url
        return f"http://127.0.0.1:{self.ports[0]}" if self.ports else None


_NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}

_ALL = (
    Kind(
        name="mlx",
        title="embedded engine",
        speaks="engine",
        tried="server",
        hint="anyclaude models pull mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
        profile=Profile(
            reasoning_field="reasoning_content",
            takes_images=False,
            takes_top_k=True,
            policy=Policy(late_tools="expand"),
        ),
    ),
    Kind(
        name="mlx-lm",
        title="mlx_lm.server",
        speaks="openai",
        ports=(8080,),
        tried="server",
        hint="mlx_lm.server --model mlx-community/Qwen3-Coder-30B-A3B-Instruct-4bit",
        profile=Profile(
            sends_model=False,
            reasoning_field="reasoning_content",
            takes_images=False,
            takes_tool_choice=False,
            takes_json_schema=False,
            takes_top_k=True,
            policy=Policy(late_tools="expand"),
            thinking_off=_NO_THINKING,
        ),
    ),
    Kind(
        name="lmstudio",
        title="LM Studio",
        speaks="openai",
        ports=(1234,),
        tried="transcript",
        hint="lms server start",
        profile=Profile(
            reasoning_field="reasoning_content",
            takes_named_tool_choice=False,
            takes_top_k=True,
            schema_rules=frozenset({"meta", "refs"}),
        ),
    ),
    Kind(
        name="ollama",
        title="Ollama",
        speaks="openai",
        ports=(11434,),
        tried="transcript",
        hint="OLLAMA_CONTEXT_LENGTH=65536 ollama serve",
        profile=Profile(
            reasoning_field="reasoning",
            takes_tool_choice=False,
            schema_rules=frozenset({"meta", "refs", "nullable"}),
            thinking_off={"reasoning_effort": "none"},
        ),
    ),
    Kind(
        name="llamacpp",
        title="llama-server",
        speaks="openai",
        ports=(8080,),
        tried="transcript",
        hint="llama-server -hf ggml-org/Qwen3-Coder-30B-A3B-Instruct-Q8_0-GGUF --jinja -c 65536",
        profile=Profile(
            reasoning_field="reasoning_content",
            takes_named_tool_choice=False,
            takes_top_k=True,
            schema_rules=frozenset({"meta", "refs", "format", "pattern"}),
            thinking_off=_NO_THINKING,
            stream_fields={"return_progress": True},
        ),
    ),
    Kind(
        name="vllm",
        title="vLLM",
        speaks="openai",
        ports=(8000,),
        tried="transcript",
        hint="vllm serve MODEL --enable-auto-tool-choice --tool-call-parser hermes --enable-prompt-tokens-details",
        profile=Profile(
            max_tokens_field="max_completion_tokens",
            reasoning_field="reasoning",
            takes_top_k=True,
            thinking_off=_NO_THINKING,
        ),
    ),
    Kind(
        name="openrouter",
        title="OpenRouter",
        speaks="openai",
        base_url="https://openrouter.ai/api",
        tried="transcript",
        hint="export ANYCLAUDE_API_KEY=… (a key of OpenRouter's)",
        needs_key=True,
        profile=Profile(
            reasoning_field="reasoning",
            takes_top_k=True,
            effort_field="reasoning.effort",
            thinking_off={"reasoning": {"enabled": False}},
        ),
    ),
    Kind(
        name="openai",
        title="OpenAI-compatible server",
        speaks="openai",
        tried="server",
        hint="anyclaude --mode openai --base-url http://HOST:PORT --model NAME",
    ),
    Kind(
        name="anthropic",
        title="Messages API server",
        speaks="anthropic",
        tried="server",
        hint="anyclaude --mode anthropic --base-url http://HOST:PORT --model NAME",
    ),
    Kind(
        name="claude",
        title="Anthropic's own service",
        speaks="anthropic",
        base_url="https://api.anthropic.com",
        tried="transcript",
        profile=Profile(policy=Policy(late_tools="expand")),  # it defers tools itself
        hint="export ANYCLAUDE_API_KEY=… to go through the gateway; without it, Claude Code signs in by itself",
    ),
)

KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
