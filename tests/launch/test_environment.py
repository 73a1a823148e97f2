import pytest

from anyclaude.launch.environment import client_environment, no_proxy, redirects, server_environment

THEIRS = {"PATH": "/bin", "AWS_PROFILE": "work", "HTTPS_PROXY": "http://proxy", "GH_TOKEN": "t", "MY_ANTHROPIC_X": "1"}


@pytest.mark.parametrize(
    "name",
    [
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_CUSTOM_HEADERS",
        "CLAUDE_CODE_USE_BEDROCK",
        "CLAUDE_CODE_USE_VERTEX",
        "AWS_BEARER_TOKEN_BEDROCK",
    ],
)
def test_what_would_send_the_client_elsewhere_is_taken_out(name: str) -> None:
    assert redirects(name)
    assert client_environment(THEIRS | {name: "x"}) == THEIRS
    assert server_environment(THEIRS | {name: "x"}) == THEIRS


@pytest.mark.parametrize("name", [*THEIRS, "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_MAX_RETRIES", "ANYCLAUDE_MODE"])
def test_everything_else_stays_with_the_client(name: str) -> None:
    assert not redirects(name)
    assert client_environment({name: "x"}) == {name: "x"}


@pytest.mark.parametrize("name", ["ANYCLAUDE_MODE", "ANYCLAUDE_API_KEY", "CLAUDE_CONFIG_DIR", "CLAUDE_CODE_ENTRYPOINT"])
def test_what_one_launch_chose_never_reaches_the_server(name: str) -> None:
    assert server_environment(THEIRS | {name: "x"}) == THEIRS


def test_this_machine_is_never_reached_through_a_proxy() -> None:
    assert no_proxy({}) == "127.0.0.1,localhost,::1"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"NO_PROXY": "corp.example, 10.0.0.0/8"}, "corp.example,10.0.0.0/8,127.0.0.1,localhost,::1"),
        ({"no_proxy": "corp.example"}, "corp.example,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "a", "no_proxy": "b"}, "a,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "localhost,,a "}, "localhost,a,127.0.0.1,::1"),
    ],
)
def test_the_persons_own_exceptions_stay(environ: dict[str, str], expected: str) -> None:
    assert no_proxy(environ) == expected
