import json
from pathlib import Path
from typing import Any

import pytest

from anyclaude.launch.local_model import hub_folder, window_of


def model_at(folder: Path, config: Any) -> Path:
    folder.mkdir(parents=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text, "utf-8")
    return folder


@pytest.mark.parametrize(
    ("config", "window"),
    [
        ({"max_position_embeddings": 40960}, 40960),
        ({"n_positions": 1024}, 1024),
        ({"max_sequence_length": 2048}, 2048),
        ({"seq_length": 8192}, 8192),
        ({"text_config": {"max_position_embeddings": 131072}, "model_type": "gemma3"}, 131072),
        ({"max_position_embeddings": 5, "text_config": {"max_position_embeddings": 7}}, 5),
        ({"max_position_embeddings": 0, "seq_length": 9}, 9),
        ({"max_position_embeddings": "40960"}, None),
        ({"max_position_embeddings": None, "text_config": None}, None),
        ({}, None),
        ([], None),
        (5, None),
        ("{broken", None),
        ("", None),
    ],
)
def test_the_window_of_a_folder_is_what_its_config_says(tmp_path: Path, config: Any, window: int | None) -> None:
    folder = model_at(tmp_path / "model", config)

    assert window_of(str(folder), tmp_path) == window


def test_the_window_of_a_hub_model_is_that_of_its_snapshot(tmp_path: Path) -> None:
    snapshots = tmp_path / "models--mlx-community--Qwen3-4B" / "snapshots"
    model_at(snapshots / "aaa", "{broken")
    model_at(snapshots / "bbb", {"max_position_embeddings": 40960})

    assert window_of("mlx-community/Qwen3-4B", tmp_path) == 40960


@pytest.mark.parametrize("model", ["mlx-community/none", "none", "", "/no/such/folder"])
def test_a_model_that_is_not_here_tells_nothing(tmp_path: Path, model: str) -> None:
    assert window_of(model, tmp_path) is None


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HF_HUB_CACHE": "/hub", "HF_HOME": "/home"}, "/hub"),
        ({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/cache"}, "/hf/hub"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/huggingface/hub"),
    ],
)
def test_the_hub_lies_where_its_own_variables_say(environ: dict[str, str], folder: str) -> None:
    assert hub_folder(environ) == Path(folder)


def test_without_variables_the_hub_lies_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/me")

    assert hub_folder({}) == Path("/people/me/.cache/huggingface/hub")
    assert hub_folder({"HF_HUB_CACHE": "~/models"}) == Path("/people/me/models")
