"""No secret is written: not whole, not in pieces, not inside JSON inside a text."""

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyclaude.telemetry.redact import Redactor
from anyclaude.telemetry.redact_stream import PieceRedactor
from anyclaude.telemetry.trace_files import TraceEvent

KEY_LINES = "\n".join(f"MIIE{n:060d}" for n in range(5))
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY_LINES}\n-----END RSA PRIVATE KEY-----"
CREDENTIALS = {
    "Anthropic key": "sk-ant-api03-abcDEF_123-xyz",
    "API key": "sk-proj-1234567890abcdefghij",
    "GitHub token": "ghp_abcdefghijklmnopqrstuvwxyz0123",
    "AWS key id": "AKIAIOSFODNN7EXAMPLE",
    "Slack token": "xoxb-123456789012-abcdef",
    "Google key": "AIzaSyA-1234567890abcdefghijklmnopqrstu",
    "Hugging Face token": "hf_abcdefghijklmnopqrstuvwx",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.c2lnbmF0dXJl",
    "private key": PEM,
}
KNOWN = 'a known "secret" of ours'


def clean(value: Any, *known: str) -> Any:
    return Redactor(known).value(value)


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_a_well_known_credential_becomes_a_word_that_says_what_it_was(kind: str) -> None:
    assert clean(f"before {CREDENTIALS[kind]} after").startswith(f"before [secret: {kind}]")
    assert clean(f'{{"key":"{CREDENTIALS[kind]}"}}') == f'{{"key":"[secret: {kind}]"}}'


def test_a_fine_grained_token_and_a_header_are_known_too() -> None:
    assert clean("github_pat_11ABCDEFG0abcdefghij_klm") == "[secret: GitHub token]"
    assert clean("Authorization: Bearer abcdefghijklmnopqrstuvwxyz") == "Authorization: B[secret: bearer token]"


@pytest.mark.parametrize(
    "text",
    [
        "task-1234567890abcdefghijklmnop",
        "sk-short",
        "the Bearer of this",
        "-----BEGIN CERTIFICATE-----\nMIIE",
        "eyJ is how JSON begins in base64",
        "curl -H 'Authorization: Bearer $ANTHROPIC_AUTH_TOKEN'",
    ],
)
def test_what_only_looks_a_little_like_a_credential_stays(text: str) -> None:
    assert clean(text) == text


def test_a_text_that_begins_a_token_everywhere_is_read_in_time_that_grows_with_its_length() -> None:
    """Without a bound on a token's header and with going back in it, this takes 20 s of processor time."""
    text = "eyJ" * 25_000
    started = time.process_time()
    assert clean(text) == text
    assert time.process_time() - started < 8
    assert clean(f"{'eyJ' * 2_000}.payload.signature") == "[secret: JWT]"


@pytest.mark.parametrize("before", ["\\n", "\\u000a", "\x1b[31m", "=", "3D", '"'])
def test_a_credential_is_found_after_an_escape_that_ends_with_a_letter(before: str) -> None:
    assert clean(f"{before}sk-1234567890abcdefghijklmnop") == f"{before}[secret: API key]"


def test_the_words_after_a_private_key_that_never_ends_stay() -> None:
    assert clean("x -----BEGIN PRIVATE KEY-----\nMIIEabc\nMIIEdef. And more.") == "x [secret: private key]. And more."


def test_a_private_key_with_line_numbers_before_its_lines_goes_whole() -> None:
    numbered = "\n".join(f"{n:6}\u2192{line}" for n, line in enumerate(PEM.splitlines(), 1))
    assert clean(numbered) == "     1\u2192[secret: private key]"


def test_known_secrets_go_wherever_they_stand() -> None:
    nested = json.dumps({"command": f"echo {KNOWN}"})
    value = {"a": [f"x{KNOWN}y", nested], KNOWN: 1, "other": [None, True, 2.5]}
    found = clean(value, KNOWN)
    assert found == {"a": ["x[secret]y", '{"command": "echo [secret]"}'], "[secret]": 1, "other": [None, True, 2.5]}


def test_a_key_that_is_hardly_one_is_left_alone() -> None:
    assert clean("ollama run", "ollama") == "ollama run"


def test_secrets_that_overlap_go_together() -> None:
    key = CREDENTIALS["API key"]
    assert clean(f"{key}tail", key[5:] + "tail") == "[secret: API key]"


def test_a_picture_keeps_its_letters() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": f"iVBOR/{CREDENTIALS['AWS key id']}/{KNOWN}"}
    assert clean(source, KNOWN)["data"] == f"iVBOR/{CREDENTIALS['AWS key id']}/[secret]"


def deltas(text: str, sizes: list[int], field: str = "text", block: int = 0) -> list[TraceEvent]:
    events: list[TraceEvent] = []
    at = 0
    while at < len(text):
        size = sizes[len(events) % len(sizes)]
        data = {"type": "content_block_delta", "index": block, "delta": {"type": "x", field: text[at : at + size]}}
        events.append(TraceEvent(float(len(events)), "content_block_delta", data))
        at += size
    return events


def words(events: list[TraceEvent], field: str = "text") -> str:
    return "".join(event.data["delta"].get(field, "") for event in events if event.event == "content_block_delta")


PARTS = st.sampled_from(
    [*CREDENTIALS.values(), KNOWN, "words ", "\n", "Bearer ", "task-", "x" * 300 + " ", ". ", "-----BEGIN ", "🦜"]
)


@settings(deadline=None)
@given(
    st.lists(PARTS, max_size=12).map("".join),
    st.lists(st.integers(1, 40), min_size=1, max_size=5),
    st.lists(st.integers(1, 30), min_size=1, max_size=5),
)
def test_pieces_say_what_the_whole_text_would_whatever_their_size(
    text: str, sizes: list[int], batches: list[int]
) -> None:
    """Fed in batches of any size, each of which gives out what it can."""
    redactor = Redactor([KNOWN])
    pieces = PieceRedactor(redactor)
    events = deltas(text, sizes)
    found: list[TraceEvent] = []
    at = n = 0
    while at < len(events):
        size = batches[n % len(batches)]
        found += pieces.feed(events[at : at + size])
        at, n = at + size, n + 1
    found += pieces.finish()
    assert [event.at_s for event in found] == [event.at_s for event in events]
    assert words(found) == redactor.text(text)


def test_pieces_of_one_block_are_not_read_together_with_those_of_the_next() -> None:
    stop = TraceEvent(1.0, "content_block_stop", {"index": 0})
    pieces = PieceRedactor(Redactor())
    first, second = deltas("sk-12345", [50]), deltas("67890abcdefghijklmnopqrst", [50], block=1)
    found = [*pieces.feed([*first, stop, *second]), *pieces.finish()]
    assert found == [*first, stop, *second]


def test_progress_between_two_pieces_keeps_its_place_and_hides_nothing() -> None:
    one, two = deltas(CREDENTIALS["API key"], [14])
    ping = TraceEvent(0.5, "ping", {"type": "ping"})
    pieces = PieceRedactor(Redactor())
    found = [*pieces.feed([one, ping, two]), *pieces.finish()]
    assert [event.event for event in found] == ["content_block_delta", "ping", "content_block_delta"]
    assert words(found) == "[secret: API key]"


def test_a_long_answer_is_given_out_while_it_comes() -> None:
    pieces = PieceRedactor(Redactor())
    events = deltas("word after word " * 200, [16])
    assert len(pieces.feed(events)) > 150


def test_progress_alone_is_given_out_at_once() -> None:
    event = TraceEvent(0.5, "progress", {"n_read": 1, "n_total": 2})
    assert PieceRedactor(Redactor()).feed([event]) == [event]


def test_a_secret_in_a_calls_arguments_is_found_in_pieces_too() -> None:
    text = json.dumps({"command": f"export A=1\n{CREDENTIALS['API key']}"})
    pieces = PieceRedactor(Redactor())
    found = [*pieces.feed(deltas(text, [3], "partial_json")), *pieces.finish()]
    assert words(found, "partial_json") == json.dumps({"command": "export A=1\n[secret: API key]"})
