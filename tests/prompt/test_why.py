from anyclaude.prompt.sections import Section
from anyclaude.prompt.why import Why, explain
from anyclaude.telemetry.sections import SectionRow
from anyclaude.telemetry.turns import TurnRow


def turn(number: int, **fields: object) -> TurnRow:
    known = {
        "id": number, "request_id": f"req_{number}", "started_at": 10.0 * number, "launch": "l", "session": "s",
        "agent": None, "request_class": "main", "entrypoint": "cli", "project": "/p", "backend": "mlx-lm",
        "base_url": "http://x", "model": "m", "tokens_prompt": 1000, "tokens_cached": 0, "tokens_prefilled": 1000,
        "tokens_out": 5, "ttft_s": 1.0, "duration_s": 2.0, "stop_reason": "end_turn", "tool_calls": 0, "repairs": 0,
        "error": None, "n_characters": 4000,
    }  # fmt: skip
    return TurnRow(**(known | fields))  # pyright: ignore[reportArgumentType]


def rows(*texts: str) -> list[SectionRow]:
    return [Section("text", f"messages.{n}.text.0", text, "user").row() for n, text in enumerate(texts)]


ONE, TWO, THREE = "a" * 2000, "b" * 2000, "c" * 4000


def why(later: list[SectionRow], earlier: list[SectionRow], **fields: object) -> Why:
    return explain(turn(2, **fields), later, turn(1), earlier)


def test_a_prompt_that_grew_could_have_had_all_of_the_earlier_one_as_the_server_counted_it() -> None:
    found = why(rows(ONE, TWO, THREE), rows(ONE, TWO), tokens_prompt=2000, n_characters=8000, tokens_cached=990)
    assert (found.verdict, found.scope, found.compared_with, found.n_new) == ("grown", "session", 1, 1)
    assert (found.tokens_could, found.is_estimate, found.tokens_lost) == (1000, False, 0)
    assert found.kept_it is True


def test_what_stands_after_the_first_change_is_lost_and_said_to_be_an_estimate() -> None:
    found = why(rows(ONE, "x" * 2000), rows(ONE, TWO))
    assert found.verdict == "changed"
    assert found.difference is not None
    assert found.difference.name == "messages.1.text.0"
    assert (found.tokens_could, found.is_estimate, found.tokens_lost) == (500, True, 500)


def test_a_server_that_read_again_what_it_could_have_kept_is_found_out() -> None:
    assert why(rows(ONE, TWO, THREE), rows(ONE, TWO), tokens_cached=100).kept_it is False


def test_a_server_is_not_judged_by_a_prompt_that_it_was_still_reading() -> None:
    grown, earlier = rows(ONE, TWO, THREE), rows(ONE, TWO)
    beside = why(grown, earlier, started_at=10.5, tokens_cached=0)
    assert (beside.ran_beside, beside.kept_it) == (True, None)
    after = why(grown, earlier, started_at=11.5, tokens_cached=0)  # the other turn still writes, but has read
    assert (after.ran_beside, after.kept_it) == (False, False)


def test_a_server_that_does_not_tell_is_not_judged() -> None:
    found = why(rows(ONE, TWO), rows(ONE), tokens_cached=None)
    assert (found.tokens_cached, found.kept_it) == (None, None)


def test_figures_that_were_not_told_are_not_made_up() -> None:
    found = explain(turn(2, tokens_prompt=None), rows(ONE, "x"), turn(1, tokens_prompt=None), rows(ONE, TWO))
    assert (found.tokens_could, found.tokens_lost) == (None, None)


def test_another_session_of_the_project_is_named_as_such() -> None:
    found = explain(turn(2, session="other"), rows(ONE, TWO), turn(1), rows(ONE))
    assert found.scope == "project"
    assert explain(turn(2, agent="a"), rows(ONE, TWO), turn(1), rows(ONE)).scope == "project"


def test_without_an_earlier_turn_it_is_the_first_or_the_models_first() -> None:
    assert explain(turn(2), rows(ONE), None, []).verdict == "first"
    assert explain(turn(2), rows(ONE), None, [], before=turn(1)).verdict == "first"
    assert explain(turn(2), rows(ONE), None, [], before=turn(1, model="other")).verdict == "other_model"
