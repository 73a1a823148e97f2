import pytest

from anyclaude.telemetry.summary import MIN_READ, summarize
from anyclaude.telemetry.turns import CLIENT_LEFT
from tests.prompt.test_why import turn


def test_sums_are_those_of_the_rows() -> None:
    found = summarize([turn(1, tokens_cached=400), turn(2, tokens_cached=900, error="api_error")], [])
    total = found.total
    assert (total.turns, total.failed, total.tokens_prompt, total.tokens_cached) == (2, 1, 2000, 1300)
    assert total.hit_rate == pytest.approx(0.65)
    assert total.tokens_out == 10


def test_turns_whose_server_does_not_tell_count_neither_as_hits_nor_as_misses() -> None:
    found = summarize([turn(1, tokens_cached=500), turn(2, tokens_cached=None)], [])
    assert found.total.hit_rate == pytest.approx(0.5)
    silent = summarize([turn(1, tokens_cached=None)], []).total
    assert (silent.tokens_cached, silent.hit_rate, silent.seconds_saved) == (None, None, None)


def test_time_saved_is_cached_tokens_times_the_measured_time_of_a_token() -> None:
    basis = [
        turn(n, tokens_prefilled=tokens, ttft_s=s)
        for n, (tokens, s) in enumerate(((3000, 6.0), (4000, 8.0), (5000, 99.0)))
    ]
    found = summarize([turn(3, tokens_cached=500)], basis)
    assert found.total.seconds_saved == pytest.approx(1.0)
    (rate,) = found.rates
    assert (rate.tokens_read, rate.n_turns, rate.seconds_a_token) == (12_000, 3, pytest.approx(0.002))


def test_turns_that_read_little_say_nothing_about_speed() -> None:
    found = summarize([turn(1)], [turn(1, tokens_prefilled=MIN_READ - 1), turn(2, tokens_prefilled=None)])
    assert (found.total.seconds_saved, found.rates) == (None, ())


def test_the_speed_of_one_server_is_not_that_of_another() -> None:
    found = summarize([turn(1, base_url="http://slow")], [turn(2)])
    assert found.total.seconds_saved is None


def test_groups_are_by_project_session_and_model_the_largest_first() -> None:
    found = summarize([turn(1, project="/small", tokens_prompt=1), turn(2, project="/large")], [])
    assert [each.name for each in found.by_project] == ["/large", "/small"]
    assert [each.name for each in found.by_model] == ["m"]
    assert [each.turns for each in found.by_session] == [2]


def test_the_slowest_turns_are_those_that_were_answered() -> None:
    found = summarize([turn(1, duration_s=1.0), turn(2, duration_s=9.0), turn(3, duration_s=99.0, error="x")], [])
    assert [row.id for row in found.slowest] == [2, 1]


def test_a_turn_that_the_client_left_has_not_failed() -> None:
    total = summarize([turn(1, error=CLIENT_LEFT), turn(2, error="api_error"), turn(3)], []).total
    assert (total.turns, total.failed, total.cancelled) == (3, 1, 1)
