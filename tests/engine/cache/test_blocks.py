import pytest

from anyclaude.engine.cache.blocks import BlockCache
from anyclaude.engine.cache.keeping import MakePayload
from anyclaude.engine.cache.lookup import SCANNED
from anyclaude.engine.cache.seam import Payload, RequestClass
from tests.engine.cache.states import TOKEN_BYTES, Sum, assert_right, ids_of, maker, snapshot_of, sums_of

MODEL, OTHER = b"model", b"other"
PLENTY = 1 << 30


def cache_of(n_tokens_held: int = PLENTY, *, block: int = 4) -> BlockCache:
    return BlockCache(n_tokens_held * TOKEN_BYTES, n_tokens=block)


def put(cache: BlockCache, tokens: list[int], request_class: RequestClass = "conversation", **more: bool) -> bool:
    return cache.put(MODEL, ids_of(tokens), 0, maker(tokens), request_class, **more)


def found(cache: BlockCache, tokens: list[int], *, needs_snapshot: bool = False) -> int:
    with cache.match(MODEL, ids_of(tokens), needs_snapshot=needs_snapshot) as hit:
        assert_right(hit, tokens)
        return hit.n_tokens


def run(start: int, n: int) -> list[int]:
    return list(range(start, start + n))


def test_a_prefix_is_found_to_the_last_token() -> None:
    cache = cache_of()
    assert put(cache, run(0, 11))
    assert found(cache, run(0, 11)) == 11
    assert found(cache, run(0, 30)) == 11
    assert found(cache, run(0, 7)) == 7
    assert found(cache, [*run(0, 6), 99, 98]) == 6
    assert found(cache, [99, *run(0, 6)]) == 0


def test_most_leaves_tokens_to_be_read() -> None:
    cache = cache_of()
    put(cache, run(0, 8))
    with cache.match(MODEL, ids_of(run(0, 8)), most=7) as hit:
        assert (hit.n_tokens, [used for _, used in hit.pieces]) == (7, [4, 3])


def test_models_do_not_share() -> None:
    cache = cache_of()
    put(cache, run(0, 8))
    assert cache.match(OTHER, ids_of(run(0, 8))).n_tokens == 0


def test_a_shared_prefix_is_kept_once_and_only_what_is_missing_is_made() -> None:
    cache = cache_of()
    made: list[tuple[int, int]] = []
    for last in range(3):
        tokens = [*run(0, 40), 100 + last]
        cache.put(MODEL, ids_of(tokens), 0, noting(made, maker(tokens)))
    assert made == [*((at, at + 4) for at in range(0, 40, 4)), (40, 41), (40, 41), (40, 41)]
    assert cache.statistics().held_bytes == 43 * TOKEN_BYTES


def noting(made: list[tuple[int, int]], make: MakePayload) -> MakePayload:
    def noted(start: int, end: int) -> Payload:
        made.append((start, end))
        return make(start, end)

    return noted


def test_four_conversations_on_one_head_hold_little_more_than_one() -> None:
    cache = cache_of(block=256)
    held: list[int] = []
    for number in range(4):
        tokens = [*run(0, 18_490), *run(100_000 * (number + 1), 700)]
        put(cache, tokens)
        held.append(cache.statistics().held_bytes)
    assert held[-1] <= 1.3 * held[0]
    assert held[-1] == held[0] + 3 * (18_490 % 256 + 700) * TOKEN_BYTES


def test_a_tail_is_replaced_by_what_continues_it_and_its_snapshot_stays() -> None:
    cache = cache_of()
    put(cache, run(0, 6))
    assert cache.put_snapshot(MODEL, ids_of(run(0, 6)), snapshot_of(run(0, 6)))
    put(cache, run(0, 7))
    put(cache, run(0, 10))
    figures = cache.statistics()
    assert (figures.n_blocks, figures.n_snapshots) == (3, 1)
    assert figures.held_bytes == (10 + 1) * TOKEN_BYTES
    assert found(cache, run(0, 10), needs_snapshot=True) == 6
    cache.check_integrity()


def test_nothing_is_put_behind_a_gap() -> None:
    cache = cache_of()
    assert not cache.put(MODEL, ids_of(run(0, 12)), 8, maker(run(0, 12)))
    assert cache.statistics().n_blocks == 0
    put(cache, run(0, 6))
    assert cache.put(MODEL, ids_of(run(0, 12)), 6, maker(run(0, 12)))
    assert found(cache, run(0, 12)) == 12


def test_the_deepest_snapshot_on_the_way_ends_the_hit() -> None:
    cache = cache_of()
    tokens = run(0, 20)
    put(cache, tokens)
    for end in (3, 8, 14):
        assert cache.put_snapshot(MODEL, ids_of(tokens[:end]), snapshot_of(tokens[:end]))
    assert found(cache, tokens, needs_snapshot=True) == 14
    assert found(cache, tokens[:13], needs_snapshot=True) == 8
    assert found(cache, [*tokens[:5], 99], needs_snapshot=True) == 3
    assert found(cache, tokens[:2], needs_snapshot=True) == 0
    assert found(cache, tokens) == 20


def test_a_snapshot_needs_its_blocks() -> None:
    cache = cache_of()
    put(cache, run(0, 6))
    assert not cache.put_snapshot(MODEL, ids_of(run(0, 7)), snapshot_of(run(0, 7)))
    assert not cache.put_snapshot(MODEL, ids_of([0, 1, 9]), snapshot_of([0, 1, 9]))


def test_of_a_conversation_the_last_snapshots_stay_and_those_of_the_head() -> None:
    cache = cache_of()
    tokens = run(0, 40)
    put(cache, tokens)
    cache.put_snapshot(MODEL, ids_of(tokens[:5]), snapshot_of(tokens[:5]), "system")
    for end in range(8, 40, 4):
        cache.put_snapshot(MODEL, ids_of(tokens[:end]), snapshot_of(tokens[:end]))
    assert cache.statistics().n_snapshots == 5
    assert [found(cache, tokens[:end], needs_snapshot=True) for end in (8, 20, 24, 28, 39)] == [5, 5, 24, 28, 36]
    cache.check_integrity()


def test_the_least_recently_used_goes_first_and_descendants_before_ancestors() -> None:
    cache = cache_of(12)
    put(cache, run(0, 8))
    put(cache, [*run(0, 4), *run(50, 4)])
    assert found(cache, run(0, 8)) == 8
    put(cache, run(100, 4))
    assert [found(cache, run(0, 8)), found(cache, [*run(0, 4), *run(50, 4)])] == [8, 4]
    assert found(cache, run(100, 4)) == 4
    assert cache.statistics().n_evicted == 1
    cache.check_integrity()


def test_what_is_leased_is_not_evicted() -> None:
    cache = cache_of(8)
    put(cache, run(0, 8))
    hit = cache.match(MODEL, ids_of(run(0, 8)))
    assert not put(cache, run(100, 8))
    assert_right(hit, run(0, 8))
    hit.release()
    hit.release()
    assert put(cache, run(100, 8))
    assert found(cache, run(0, 8)) == 0
    assert cache.statistics().n_leased == 0


def test_side_requests_never_push_out_a_conversation() -> None:
    cache = cache_of(8)
    put(cache, run(0, 8))
    for start in range(100, 500, 10):
        put(cache, run(start, 8), "side")
    assert found(cache, run(0, 8)) == 8
    put(cache, run(600, 8))
    assert found(cache, run(0, 8)) == 0


def test_a_conversation_pushes_out_side_requests_though_they_are_newer() -> None:
    cache = cache_of(12)
    put(cache, run(0, 8))
    put(cache, run(100, 4), "side")
    put(cache, run(200, 4))
    assert [found(cache, run(at, n)) for at, n in ((0, 8), (100, 4), (200, 4))] == [8, 0, 4]


def test_a_shared_head_outlives_the_conversations_on_it() -> None:
    cache = cache_of(16)
    put(cache, run(0, 4), "system")
    for start in range(100, 200, 10):
        put(cache, [*run(0, 4), *run(start, 8)])
    put(cache, run(900, 12))
    assert found(cache, run(0, 4)) == 4


def test_heads_that_fill_the_budget_make_room_for_conversations() -> None:
    cache = cache_of(16)
    put(cache, run(0, 8), "system")
    put(cache, run(100, 8), "system")
    put(cache, run(200, 8))
    assert [found(cache, run(at, 8)) for at in (0, 100, 200)] == [0, 8, 8]


def test_what_nobody_used_for_hours_is_no_main_conversation_any_more() -> None:
    now = 0.0
    cache = BlockCache(8 * TOKEN_BYTES, n_tokens=4, clock=lambda: now, stale_s=100.0)
    put(cache, run(0, 8))
    now = 99.0
    assert not put(cache, run(100, 8), "side")
    now = 300.0
    assert put(cache, run(100, 8), "side")


def test_pinned_blocks_go_last() -> None:
    cache = cache_of(8)
    put(cache, run(0, 8))
    digest = str(cache.ls()[0]["digest"])
    assert cache.pin(digest)
    assert not put(cache, run(100, 8), "system")
    assert found(cache, run(0, 8)) == 8
    assert cache.ls()[0]["is_pinned"]
    cache.set_budget(4 * TOKEN_BYTES)
    assert found(cache, run(0, 8)) == 4
    cache.check_integrity()
    cache.set_budget(8 * TOKEN_BYTES)
    put(cache, run(0, 8))
    assert not put(cache, run(100, 8), "system"), "a pin holds again when its block is back"
    assert cache.unpin(digest)
    assert put(cache, run(100, 8), "system")
    assert not cache.unpin(digest)
    cache.check_integrity()


def test_what_is_pinned_is_listed_when_it_was_continued_and_let_go_of_when_it_is_gone() -> None:
    cache = cache_of()
    put(cache, run(0, 8))
    digest = str(cache.ls()[0]["digest"])
    assert cache.pin(digest)
    put(cache, run(0, 16))
    assert [(line["n_tokens"], line["is_pinned"]) for line in cache.ls()] == [(8, True), (16, False)]
    assert cache.remove(digest) == 4
    assert cache.ls() == []
    assert cache.unpin(digest)
    put(cache, run(0, 8))
    assert [line["is_pinned"] for line in cache.ls()] == [False]
    cache.check_integrity()


def test_the_pin_of_a_tail_passes_to_what_continues_it() -> None:
    cache = cache_of(16)
    put(cache, run(0, 6))
    assert cache.pin(str(cache.ls()[0]["digest"]))
    put(cache, run(0, 8))
    assert cache.statistics().pinned_bytes == 8 * TOKEN_BYTES
    cache.check_integrity()


def test_a_smaller_budget_holds_at_once() -> None:
    cache = cache_of(100)
    put(cache, run(0, 100))
    cache.set_budget(40 * TOKEN_BYTES)
    assert cache.statistics().held_bytes == 40 * TOKEN_BYTES
    assert found(cache, run(0, 100)) == 40


def test_without_room_for_all_the_first_blocks_are_kept() -> None:
    cache = cache_of(10)
    assert not put(cache, run(0, 40))
    assert found(cache, run(0, 40)) == 8
    cache.check_integrity()


def test_snapshots_hold_half_of_the_budget_at_most() -> None:
    cache = cache_of(16)
    put(cache, run(0, 4))
    for n in range(4):
        big = Sum(sums_of(run(0, 4)))
        cache.put_snapshot(MODEL, ids_of(run(0, n + 1)), big)
        cache.check_integrity()
    assert cache.statistics().snapshot_bytes == 8 * TOKEN_BYTES


def test_removed_blocks_are_gone_and_a_hit_on_them_stays_right() -> None:
    cache = cache_of()
    put(cache, run(0, 8))
    put(cache, [*run(0, 4), *run(50, 6)])
    hit = cache.match(MODEL, ids_of(run(0, 8)))
    first = hit.pieces[0].block.name.hex()
    assert cache.remove(first) == 4
    assert_right(hit, run(0, 8))
    hit.release()
    cache.check_integrity()


def test_what_is_removed_by_its_line_is_gone_whole_and_what_it_shared_stays() -> None:
    cache = cache_of()
    put(cache, run(0, 12))
    put(cache, [*run(0, 4), *run(50, 8)])
    shared, *own = sorted(cache.ls(), key=lambda line: (line["n_tokens"], line["digest"]))  # pyright: ignore
    assert (shared["n_tokens"], [line["n_tokens"] for line in own]) == (4, [12, 12])
    assert cache.remove(str(own[0]["digest"])) == 2
    assert [line["n_tokens"] for line in cache.ls()] == [12]
    assert own[1]["digest"] in {line["digest"] for line in cache.ls()}
    cache.check_integrity()


def test_clear_leaves_nothing_but_what_is_in_use() -> None:
    cache = cache_of()
    put(cache, run(0, 8))
    hit = cache.match(MODEL, ids_of(run(0, 8)))
    assert cache.clear() == 2
    assert cache.statistics().held_bytes == 0
    assert_right(hit, run(0, 8))
    hit.release()
    assert found(cache, run(0, 8)) == 0
    cache.check_integrity()


def test_a_list_names_each_end_and_each_fork_and_counts_every_block_once() -> None:
    cache = cache_of()
    cache.name_model(MODEL, "tiny")
    put(cache, run(0, 8), "system")
    put(cache, [*run(0, 8), *run(50, 6)])
    put(cache, [*run(0, 8), *run(60, 9)])
    lines = {line["n_tokens"]: line for line in cache.ls()}
    assert {n: (line["own_tokens"], line["request_class"], line["model"]) for n, line in lines.items()} == {
        8: (8, "system", "tiny"),
        14: (6, "conversation", "tiny"),
        17: (9, "conversation", "tiny"),
    }
    assert sum(int(str(line["own_bytes"])) for line in lines.values()) == cache.statistics().held_bytes


def test_among_many_children_a_whole_tail_is_always_found_and_the_newest_parts_are() -> None:
    cache = cache_of(block=8)
    head = run(0, 8)
    conversations = [[*head, 1000 + n, 5, 6] for n in range(4 * SCANNED)]
    for tokens in conversations:
        put(cache, tokens)
    assert found(cache, [*conversations[0], 7, 7]) == 11
    newest, oldest = conversations[-1], conversations[1]
    assert found(cache, [*newest[:10], 99]) == 10
    assert found(cache, [*oldest[:10], 99]) == 8


def test_what_fails_while_it_is_made_leaves_the_tree_sound() -> None:
    cache = cache_of()

    def broken(start: int, end: int) -> Sum:
        if start >= 8:
            raise RuntimeError("out of memory")
        return maker(run(0, 16))(start, end)

    with pytest.raises(RuntimeError):
        cache.put(MODEL, ids_of(run(0, 16)), 0, broken)
    cache.check_integrity()
    assert found(cache, run(0, 16)) == 8
    assert cache.statistics().n_leased == 0
