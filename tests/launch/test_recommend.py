import pytest

from anyclaude.launch.recommend import KNOWN, Machine, advise, rank, this_machine, tokens_that_fit

GB = 1_000_000_000


def machine(budget_gb: float) -> Machine:
    return Machine(int(budget_gb * GB / 0.75), int(budget_gb * GB), "apple")


@pytest.mark.parametrize(
    ("budget_gb", "name", "room"),
    [
        (96, "Qwen3-Next-80B-A3B-Instruct-4bit", 65_536),
        (50, "Qwen3-Next-80B-A3B-Instruct-4bit", 65_536),
        (48, "Qwen3-Coder-30B-A3B-Instruct-4bit", 65_536),
        (34, "Qwen3-Coder-30B-A3B-Instruct-4bit", 65_536),
        (24, "Qwen3-8B-4bit", 65_536),
        (18, "Qwen3-8B-4bit", 32_768),
        (12, "Qwen3-4B-Instruct-2507-4bit", 24_576),
        (8, None, 24_576),
    ],
)
def test_the_largest_model_with_room_for_a_conversation_is_advised(
    budget_gb: float, name: str | None, room: int
) -> None:
    advice = advise(machine(budget_gb))
    assert (advice.best.model.name.rpartition("/")[2] if advice.best else None) == name
    assert advice.room == room


def test_what_is_advised_fits_with_its_state_into_the_budget() -> None:
    for budget_gb in range(8, 200, 4):
        best = advise(machine(budget_gb)).best
        if best is not None:
            needs = best.model.weights_bytes + 2.5 * best.tokens * best.model.kv_bytes
            assert needs <= budget_gb * GB
            assert best.tokens >= 24_576


def test_more_memory_never_gets_a_smaller_model() -> None:
    ranks = [rank(best.model.name) for gb in range(8, 200) if (best := advise(machine(gb)).best) is not None]
    assert all(rank is not None for rank in ranks)
    assert ranks == sorted(ranks, key=lambda place: -(place or 0))


def test_the_known_models_are_in_the_order_of_their_size() -> None:
    assert [known.weights_bytes for known in KNOWN] == sorted((known.weights_bytes for known in KNOWN), reverse=True)


def test_the_budget_is_the_setting_or_three_quarters_of_the_memory() -> None:
    assert this_machine(5000).budget_bytes == 5 * GB
    told = this_machine(None)
    assert told.budget_bytes == int(told.memory_bytes * 0.75) > 0


def test_where_not_even_the_weights_fit_no_token_does() -> None:
    assert tokens_that_fit(machine(4), 5 * GB, 1000) == 0
    assert tokens_that_fit(machine(4), 3 * GB, 100_000) == 4000
