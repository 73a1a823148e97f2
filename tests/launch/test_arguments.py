import pytest

from anyclaude.errors import UsageError
from anyclaude.launch.arguments import CLIENT_WORDS, WORDS, CommandLine, parse


def parsed(*arguments: str) -> CommandLine:
    return parse(list(arguments))


def passed_on(*arguments: str) -> bool:
    """Everything goes to the client as it came."""
    return parsed(*arguments) == CommandLine({}, frozenset(), None, arguments)


def test_nothing_is_a_launch() -> None:
    assert parsed() == CommandLine({}, frozenset(), None, ())


SINGLE = sorted(name for name, word in WORDS.items() if word.stands_alone or not word.commands)
WITH_COMMANDS = sorted(name for name, word in WORDS.items() if word.commands)


@pytest.mark.parametrize("word", SINGLE)
def test_a_word_of_ours_alone_is_ours(word: str) -> None:
    assert parsed(word) == CommandLine({}, frozenset(), word, ())


@pytest.mark.parametrize("word", sorted(set(WITH_COMMANDS) - set(SINGLE)))
def test_a_word_that_needs_a_command_below_it_says_which(word: str) -> None:
    with pytest.raises(UsageError, match=f"`anyclaude {word}` needs one of {WORDS[word].commands[0].name}"):
        parsed(word)
    assert "--help" in parsed(word, "--help").flags


@pytest.mark.parametrize("word", WITH_COMMANDS)
def test_commands_below_a_word_take_no_more_operands_than_they_know(word: str) -> None:
    for command in WORDS[word].commands:
        operands = tuple("12"[: command.n_operands])
        line = parsed(word, command.name, *operands, "--json")
        assert (line.word, line.command, line.operands, line.flags) == (word, command.name, operands, {"--json"})
        assert passed_on(word, command.name, *operands, "more", "words")


def test_a_command_that_needs_a_name_says_so() -> None:
    with pytest.raises(UsageError, match="a name is missing: anyclaude models pull NAME"):
        parsed("models", "pull")
    assert parsed("models", "unload").command == "unload"
    assert parsed("models", "pull", "org/name", "--yes").operands == ("org/name",)
    assert "--help" in parsed("models", "pull", "--help").flags


@pytest.mark.parametrize("words", ["cache why 1 2", "prompt diff 1 2 3", "trace show 1 last", "trace on 5"])
def test_a_turn_too_many_is_an_error_and_no_prompt(words: str) -> None:
    with pytest.raises(UsageError, match=f"`{words.split()[-1]}` is one too many"):
        parsed(*words.split())


def test_what_is_almost_a_command_below_a_word_is_asked_about() -> None:
    with pytest.raises(UsageError, match="did you mean `anyclaude cache why`"):
        parsed("cache", "wy")
    assert passed_on("trace", "the", "leak")
    assert passed_on("prompt", "engineering")


def test_options_of_a_word_take_a_value() -> None:
    assert parsed("stats", "--days", "3", "--session=ab", "--all").values == {"--days": "3", "--session": "ab"}
    assert parsed("stats", "--model", "m").options == {"model": "m"}
    with pytest.raises(UsageError, match="--project needs a value: --project PROJECT"):
        parsed("stats", "--project")
    with pytest.raises(UsageError, match="does not know --dayz; it knows --json, --turns, --all, --session"):
        parsed("stats", "--dayz")


def test_an_option_that_needs_no_value_has_one_of_its_own() -> None:
    assert parsed("--private", "-p", "x") == CommandLine({"private": "true"}, frozenset(), None, ("-p", "x"))
    assert parsed("--private=off").options == {"private": "off"}


@pytest.mark.parametrize("word", sorted(WORDS))
def test_a_word_of_ours_with_more_words_is_a_prompt(word: str) -> None:
    assert passed_on(word, "of", "the", "build")
    assert passed_on("-p", word)
    assert passed_on("please", word)


def test_a_prompt_that_begins_with_a_word_of_ours_is_a_prompt() -> None:
    assert passed_on("status of the build")
    assert passed_on("stop", "4f2a")
    assert passed_on("logs", "4f2a", "--follow")


def test_words_of_ours_know_their_flags() -> None:
    assert parsed("status", "--json").flags == {"--json"}
    assert parsed("logs", "-f") == CommandLine({}, frozenset({"-f"}), "logs", ())
    assert parsed("stop", "--force", "--json").flags == {"--force", "--json"}


@pytest.mark.parametrize(
    "arguments",
    [("status", "--jsn"), ("config", "-x"), ("logs", "--json"), ("doctor", "--fix", "--json"), ("serve", "--print")],
)
def test_an_unknown_flag_to_a_word_of_ours_is_an_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"`anyclaude {arguments[0]}` does not know {arguments[1]}"):
        parsed(*arguments)


@pytest.mark.parametrize("word", sorted(CLIENT_WORDS - set(WORDS)))
def test_words_of_the_clients_go_through_with_their_help(word: str) -> None:
    assert passed_on(word)
    assert passed_on(word, "--help")
    assert passed_on(word, "-h")
    assert passed_on(word, "list", "--version")


@pytest.mark.parametrize(
    "arguments",
    [
        ("mcp", "add", "x", "--model", "m", "--", "npx", "--port", "80"),
        ("plugin", "--debug"),
        ("stop", "4f2a", "--model", "m"),
        ("logs", "4f2a", "--debug=info"),
    ],
)
def test_commands_of_the_clients_lose_nothing(arguments: tuple[str, ...]) -> None:
    assert parsed(*arguments).client == arguments
    assert parsed(*arguments).word is None


def test_options_before_a_command_of_the_clients_are_ours() -> None:
    assert parsed("--mode", "vllm", "agents", "--model", "m") == CommandLine(
        {"mode": "vllm"}, frozenset(), None, ("agents", "--model", "m")
    )


@pytest.mark.parametrize(("word", "meant"), [("statsu", "stats` or `status"), ("model", "models"), ("doctr", "doctor")])
def test_a_single_word_that_is_almost_ours_is_asked_about(word: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean `{meant}`"):
        parsed(word)
    assert passed_on(word, "of", "the", "build")
    assert parsed("--", word).client == (word,)


def test_options_of_ours_are_taken_out_wherever_they_stand() -> None:
    line = parsed("-p", "--model", "m", "say hi", "--base-url=http://x:1", "--verbose")

    assert line == CommandLine(
        {"model": "m", "base_url": "http://x:1"}, frozenset(), None, ("-p", "say hi", "--verbose")
    )


def test_options_of_ours_go_with_words_of_ours() -> None:
    assert parsed("models", "--mode", "vllm") == CommandLine({"mode": "vllm"}, frozenset(), "models", ())
    assert parsed("--mode", "vllm", "models") == CommandLine({"mode": "vllm"}, frozenset(), "models", ())
    assert parsed("serve", "--host=0.0.0.0", "--port", "9000").options == {"host": "0.0.0.0", "port": "9000"}


def test_the_last_of_an_option_counts() -> None:
    assert parsed("--model", "a", "--model=b").options == {"model": "b"}


def test_a_value_may_hold_equal_signs_or_be_empty() -> None:
    assert parsed("--model=a=b").options == {"model": "a=b"}
    assert parsed("--model=").options == {"model": ""}


@pytest.mark.parametrize("option", ["--mode", "--model", "--base-url", "--port", "--host"])
def test_an_option_without_its_value_is_an_error(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} needs a value"):
        parsed("-p", option)
    with pytest.raises(UsageError, match=f"{option} needs a value"):
        parsed(option, "--", "x")


def test_debug_takes_a_level_only_with_an_equal_sign() -> None:
    assert parsed("--debug").options == {"debug": "debug"}
    assert parsed("--debug=").options == {"debug": "debug"}
    assert parsed("--debug=warning").options == {"debug": "warning"}
    assert parsed("--debug", "info") == CommandLine({"debug": "debug"}, frozenset(), None, ("info",))


def test_after_two_dashes_everything_is_the_clients() -> None:
    assert parsed("--", "status") == CommandLine({}, frozenset(), None, ("status",))
    assert parsed("--mode", "vllm", "--", "--model", "x", "--help", "--") == CommandLine(
        {"mode": "vllm"}, frozenset(), None, ("--model", "x", "--help", "--")
    )
    assert parsed("status", "--") == CommandLine({}, frozenset(), None, ("status",))


@pytest.mark.parametrize("flag", ["--help", "-h", "--version", "--dry-run", "--no-launch"])
def test_flags_of_a_launch_are_ours_in_front(flag: str) -> None:
    assert parsed(flag) == CommandLine({}, frozenset({flag}), None, ())


def test_help_after_a_word_of_ours_is_ours() -> None:
    assert parsed("doctor", "--help") == CommandLine({}, frozenset({"--help"}), "doctor", ())


def test_help_after_the_clients_own_arguments_is_the_clients() -> None:
    assert passed_on("-p", "--version")
    assert passed_on("--continue", "-h")


def test_a_dry_run_may_stand_anywhere() -> None:
    assert parsed("-p", "hi", "--dry-run") == CommandLine({}, frozenset({"--dry-run"}), None, ("-p", "hi"))


def test_flags_that_only_look_like_ours_are_the_clients() -> None:
    assert passed_on("--debug-file", "x")
    assert passed_on("--dry-run=yes")
    assert passed_on("")
