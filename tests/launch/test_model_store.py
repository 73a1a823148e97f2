"""Which models are on this machine, by name, by folder, and by what the cache's layout says."""

import json
from pathlib import Path

import pytest

from anyclaude.errors import ModelRefused, NoBackend
from anyclaude.launch.model_store import (
    LocalModel,
    check_model,
    find_model,
    hub_models,
    is_hub_id,
    last_used,
    used_at,
)
from anyclaude.telemetry.ledger import Ledger
from tests.support.model_folder import make_hub_model, make_model
from tests.telemetry.rows import record

NOWHERE = Path("/nowhere")


def missing(name: str, hub: Path = NOWHERE, project: Path = NOWHERE) -> str:
    with pytest.raises(NoBackend) as caught:
        find_model(name, hub, project)
    return caught.value.message


def test_a_hub_model_is_found_by_its_id_with_and_without_the_prefix(tmp_path: Path) -> None:
    snapshot = make_hub_model(tmp_path, "mlx-community/Tiny-4bit", n_bytes=1000)
    found = find_model("mlx/mlx-community/Tiny-4bit", tmp_path, NOWHERE)
    assert found == find_model("mlx-community/Tiny-4bit", tmp_path, NOWHERE)
    assert (found.folder, found.short_name, found.context_window) == (snapshot, "Tiny-4bit", 40960)
    assert 1000 < found.weights_bytes < 1200
    assert found.kv_bytes == 2 * 2 * 2 * 16 * 2
    assert found.chats


def test_the_snapshot_is_the_one_that_refs_main_names(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/m", commit="aaa")
    newer = make_model(tmp_path / "models--org--m" / "snapshots" / "bbb")
    (tmp_path / "models--org--m" / "refs" / "main").write_text("bbb")
    assert find_model("org/m", tmp_path, NOWHERE).folder == newer


def test_the_name_that_the_client_shows_is_enough_where_only_one_has_it(tmp_path: Path) -> None:
    snapshot = make_hub_model(tmp_path, "one/Tiny")
    assert find_model("mlx/tiny", tmp_path, NOWHERE).folder == snapshot
    make_hub_model(tmp_path, "two/Tiny")
    assert "Tiny is the name of several: one/Tiny, two/Tiny" in missing("Tiny", tmp_path)


def test_a_folder_is_named_absolutely_relatively_or_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = make_model(tmp_path / "models" / "mine")
    project = tmp_path / "project"
    project.mkdir()
    for name in (f"mlx/{folder}", str(folder), "mlx/../models/mine", "../models/mine/", "~/models/mine"):
        found = find_model(name, NOWHERE, project)
        assert (found.folder, found.short_name, found.name) == (folder, "mine", str(folder))
    assert find_model(".", NOWHERE, folder).folder == folder


def test_a_model_that_is_not_here_is_answered_with_the_command_that_downloads_it(tmp_path: Path) -> None:
    assert missing("mlx/org/none", tmp_path).endswith(
        "is not on this machine. To download it:\n  anyclaude models pull org/none"
    )
    assert missing("mlx/", tmp_path).startswith("mlx/ needs a model")
    assert missing("qwen3:30b", tmp_path).startswith("'qwen3:30b' is neither a hub id")
    assert missing("/no/such", tmp_path) == "/no/such is not a folder"
    (tmp_path / "build").mkdir()
    assert missing("build", tmp_path, tmp_path).endswith("For the folder of that name: mlx/./build")


def test_a_folder_that_is_no_models_is_answered_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"it has no config\.json"):
        find_model(str(tmp_path), NOWHERE, NOWHERE)
    folder = make_model(tmp_path / "m", weights=None)
    with pytest.raises(ModelRefused, match="it has no weights"):
        find_model(str(folder), NOWHERE, NOWHERE)


def test_what_is_not_whole_or_no_model_of_ours_is_not_listed(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/whole")
    make_hub_model(tmp_path, "org/broken-off", weights=None)
    make_hub_model(tmp_path, "org/elsewhere", commit="d00d")
    (tmp_path / "models--org--elsewhere" / "refs" / "main").write_text("../../outside")
    make_hub_model(tmp_path, "org/no-ref")
    (tmp_path / "models--org--no-ref" / "refs" / "main").unlink()
    half = make_hub_model(tmp_path, "org/half", weights="model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (half / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "datasets--org--data").mkdir()
    (tmp_path / "models--org--empty").mkdir()
    assert [model.name for model in hub_models(tmp_path)] == ["org/whole"]
    assert hub_models(NOWHERE) == []


def test_a_model_without_a_chat_template_is_listed_and_said_not_to_chat(tmp_path: Path) -> None:
    snapshot = make_hub_model(tmp_path, "org/embeds")
    (snapshot / "tokenizer_config.json").resolve().write_text("{}")
    assert [model.chats for model in hub_models(tmp_path)] == [False]
    (snapshot / "chat_template.jinja").write_text("{{ messages }}")
    assert [model.chats for model in hub_models(tmp_path)] == [True]


@pytest.mark.parametrize("name", ["org/name", "name", "a.b/c-d_e", "o1/n.1"])
def test_hub_ids_are_what_the_hub_allows(name: str) -> None:
    assert is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["", "a/b/c", "a--b", "a..b/c", "../x", "/x", "a b", "a:b", ".hidden/x", "x" * 97, "a/"]
)
def test_what_is_no_hub_id_is_told_apart(name: str) -> None:
    assert not is_hub_id(name)


def test_a_name_that_is_almost_one_that_is_here_is_answered_with_it(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/Tiny-4bit")
    assert "(did you mean org/Tiny-4bit?). To download it" in missing("mlx/org/tiny-4bi", tmp_path)
    assert "(did you mean org/Tiny-4bit?)" in missing("mlx/tiny-4b", tmp_path)
    assert "did you mean" not in missing("mlx/org/other", tmp_path)


def test_a_model_that_never_read_a_prompt_was_not_used(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    record(ledger, backend="mlx", model="/broken", tokens_prompt=None)
    ledger.close()
    assert last_used(tmp_path / "ledger.sqlite3") == {}


def test_when_a_model_was_used_is_what_the_ledger_says_of_any_of_its_snapshots(tmp_path: Path) -> None:
    hub, ledger = tmp_path / "hub", Ledger(tmp_path / "ledger.sqlite3")
    model = _only(hub, make_hub_model(hub, "org/m", commit="new"))
    old = str(model.folder.parent / "old")
    for started_at, backend, folder in (
        (5.0, "mlx", old),
        (9.0, "mlx", old),
        (99.0, "mlx-lm", old),
        (7.0, "mlx", "/x"),
    ):
        record(ledger, backend=backend, model=folder, started_at=started_at)
    ledger.close()
    used = last_used(tmp_path / "ledger.sqlite3")
    assert used == {old: 9.0, "/x": 7.0}
    assert used_at(model, used) == 9.0
    assert used_at(model, {}) is None
    assert last_used(tmp_path / "none") == {}
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"SQLite no more" * 100)
    assert last_used(damaged) == {}


def _only(hub: Path, snapshot: Path) -> LocalModel:
    (model,) = hub_models(hub)
    assert model.folder == snapshot
    return model


def test_the_engines_own_check_speaks_through_a_process(tmp_path: Path) -> None:
    check_model(make_hub_model(tmp_path, "org/m"))
    hostile = make_model(tmp_path / "hostile", model_file="run.py")
    with pytest.raises(ModelRefused, match="has model_file"):
        check_model(hostile)
