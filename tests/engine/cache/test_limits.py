from anyclaude.engine.cache.index import File
from anyclaude.engine.cache.limits import DAY_S, expired, first_to_go, with_descendants
from anyclaude.engine.cache.seam import RequestClass, Stored


def file(name: str, parent: str, *, start: int = 0, used_at: float = 0.0, of: RequestClass = "side") -> File:
    entry = Stored(name.encode(), "block", b"model", parent.encode(), name.encode(), start, 10, of, used_at)
    return File(entry, 10, "")


def files(*made: File) -> dict[bytes, File]:
    return {each.entry.name: each for each in made}


def test_what_was_used_at_the_same_time_goes_from_its_end() -> None:
    there = files(file("a", "", start=0), file("b", "a", start=4), file("c", "b", start=8))
    assert first_to_go(there, (), 20) == [b"c", b"b"]
    assert first_to_go(there, (), 0) == []
    assert first_to_go(there, (), 1000) == [b"c", b"b", b"a"]


def test_a_class_is_worth_days() -> None:
    there = files(
        file("side", "", used_at=2 * DAY_S),
        file("conversation", "", used_at=1.5 * DAY_S, of="conversation"),
        file("old", "", used_at=0.5 * DAY_S, of="conversation"),
        file("system", "", of="system"),
    )
    assert first_to_go(there, (), 1000) == [b"old", b"side", b"conversation", b"system"]


def test_what_leads_to_a_pinned_block_goes_last_and_never_expires() -> None:
    there = files(file("a", ""), file("b", "a", start=4), file("c", "b", start=8), file("new", "", used_at=9.0))
    assert first_to_go(there, [b"b"], 1000) == [b"c", b"new", b"b", b"a"]
    assert expired(there, [b"b"], before=5.0) == [b"c"]


def test_descendants_are_found_however_deep() -> None:
    there = files(file("a", ""), file("b", "a"), file("c", "b"), file("other", ""))
    assert with_descendants(there, [b"a"]) == {b"a", b"b", b"c"}
