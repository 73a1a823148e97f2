"""What `anyclaude doctor --engine` reports is measured, right on every kind of model, and leaves nothing behind."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from anyclaude.engine.model import adapter
from anyclaude.engine.model.state import Layout
from anyclaude.engine.selftest import selftest
from anyclaude.errors import ModelRefused
from tests.support.models import FAMILIES, Family, random_model


@pytest.mark.parametrize("family", FAMILIES)
def test_state_that_went_through_blocks_and_bytes_says_the_same(tmp_path: Path, family: Family) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = selftest(random_model(tmp_path / "model", family), scratch)
    assert report["model"] == str(tmp_path / "model")
    assert report["parity"]["equal_tokens"] is True
    assert report["parity"]["largest_difference"] < 2e-4
    assert report["mask"]["holds"] is True
    assert list(scratch.iterdir()) == []


def test_without_a_folder_a_model_with_random_weights_is_tried_and_every_figure_can_be_sent(tmp_path: Path) -> None:
    report = selftest(None, tmp_path)
    assert report["model"] == "random weights"
    assert report["parity"]["equal_tokens"] is True
    assert report["parity"]["tokens"] == 2_048
    assert report["reload"]["bytes"] == 64 << 20
    assert min(report["parity"]["read_s"], report["parity"]["restore_s"], report["reload"]["read_s"]) > 0
    assert report["memory"]["peak_bytes"] >= report["memory"]["active_bytes"]
    assert report["machine"]["device"] == str(mx.default_device())
    assert msgspec.json.decode(msgspec.json.encode(report)) == report


def test_state_that_comes_back_wrong_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Layout.cut

    def one_too_early(self: Layout, caches: object, row: int, start: int, end: int) -> object:
        return cut(self, caches, row, max(0, start - 1), end if start == 0 else end - 1)  # pyright: ignore

    monkeypatch.setattr(Layout, "cut", one_too_early)
    assert selftest(None, tmp_path)["parity"]["largest_difference"] > 1e-3


def test_no_token_is_read_that_the_model_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLX would read behind the end of the embeddings, and say nothing."""
    seen: set[int] = set()
    model = adapter.random_model(n_vocabulary=40)

    class Listening:
        def __call__(self, tokens: mx.array, **fields: Any) -> mx.array:
            seen.update(np.array(tokens).reshape(-1).tolist())
            return model(tokens, **fields)

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

    monkeypatch.setattr(adapter, "random_model", Listening)
    assert selftest(None, tmp_path)["parity"]["equal_tokens"] is True
    assert seen == set(range(40))


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=str(tmp_path)):
        selftest(tmp_path, tmp_path)
