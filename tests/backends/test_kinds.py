import pytest

from anyclaude.backends.kinds import KINDS
from anyclaude.backends.seam import Target


def test_local_kinds_are_looked_for_on_their_usual_ports() -> None:
    assert {name: kind.ports for name, kind in KINDS.items() if kind.ports} == {
        "mlx-lm": (8080,),
        "lmstudio": (1234,),
        "ollama": (11434,),
        "llamacpp": (8080,),
        "vllm": (8000,),
    }


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("ollama", "http://127.0.0.1:11434"),
        ("openrouter", "https://openrouter.ai/api"),
        ("claude", "https://api.anthropic.com"),
        ("openai", None),
        ("anthropic", None),
    ],
)
def test_each_kind_has_the_address_that_is_asked_without_a_base_url(kind: str, url: str | None) -> None:
    assert KINDS[kind].default_url == url


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_says_how_to_start_it(kind: str) -> None:
    assert KINDS[kind].name == kind
    assert KINDS[kind].title
    assert KINDS[kind].hint


def test_a_target_never_prints_its_key() -> None:
    target = Target(kind="openrouter", base_url="https://x", model="m", api_key="sk-secret")

    for printed in (repr(target), str(target), f"{target}", f"{[target]}"):
        assert "sk-secret" not in printed
