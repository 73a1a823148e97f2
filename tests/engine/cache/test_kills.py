from pathlib import Path

from tests.engine.cache.kills import killed

N_KILLS = 30


def test_after_thirty_kills_nothing_is_torn_and_all_that_is_found_is_right(tmp_path: Path) -> None:
    left = list(killed(tmp_path / "blocks", N_KILLS))
    assert [each.n_set_aside for each in left] == [0] * N_KILLS
    assert left[-1].n_files > 0
    assert left[-1].n_tokens > 0
