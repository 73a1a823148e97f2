"""When a launch uses the embedded engine, and which model of this machine with which window."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from anyclaude.backends.kinds import KINDS
from anyclaude.config.settings import Settings
from anyclaude.errors import AnyclaudeError, ModelRefused, NoBackend, SettingError
from anyclaude.launch.choice import Choice
from anyclaude.launch.choose import choose
from anyclaude.launch.engine_choice import engine_choice, names_engine
from anyclaude.launch.recommend import KNOWN
from tests.support.backend import Exchange, ScriptedBackend
from tests.support.model_folder import make_hub_model, make_model


def settings(*, given: bool = True, **fields: Any) -> Settings:
    """`given`: by options of this launch, else by the file."""
    return Settings(**fields, sources={name: f"--{name}" if given else "config.toml" for name in fields})


def chosen(hub: Path, used: dict[str, float] | None = None, **fields: Any) -> Choice:
    return asyncio.run(choose(settings(**fields), hub, [].append, lambda: used or {}))


def instead(hub: Path, used: dict[str, float] | None = None, **fields: Any) -> Choice:
    """What is chosen where no server runs: the test does not depend on what listens on this machine's ports."""
    return engine_choice(settings(**fields), hub, lambda: used or {}, is_named=False)


def refused(hub: Path, **fields: Any) -> str:
    with pytest.raises(AnyclaudeError) as caught:
        instead(hub, **fields)
    return caught.value.message


def test_a_named_hub_model_becomes_a_target_that_the_engine_can_load(tmp_path: Path) -> None:
    snapshot = make_hub_model(tmp_path, "org/Tiny")
    choice = chosen(tmp_path, model="mlx/org/Tiny", kv_disk_mb=5)
    assert choice == chosen(tmp_path, mode="mlx", model="org/Tiny", kv_disk_mb=5)
    target = choice.target
    assert (choice.model, choice.window) == ("Tiny", 40960)
    assert (target.kind, target.base_url, target.model) == ("mlx", "engine", str(snapshot))
    assert (target.context_window, target.max_output_tokens, target.is_model_chosen) == (40960, 5120, True)
    assert target.models == ()
    assert target.engine_options == {"kv_disk_mb": 5, "kv_disk_days": 30, "kv_write_mb_a_day": 40_000}
    assert target.kind in KINDS
    assert choice.notes[0] == f"Tiny on the embedded engine ({snapshot})"


def test_a_folder_is_named_by_its_path_and_shown_by_its_last_part(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    choice = chosen(tmp_path, model=f"mlx/{folder}")
    assert (choice.model, choice.target.model) == ("mine", str(folder))


@pytest.mark.parametrize(
    ("fields", "kind", "is_engine"),
    [
        ({}, None, False),
        ({"mode": "mlx"}, "mlx", True),
        ({"model": "mlx/a"}, None, True),
        ({"model": "a"}, None, False),
        ({"model": "mlx/a", "mode": "ollama"}, "ollama", False),
        ({"model": "mlx/a", "base_url": "http://x"}, None, False),
        ({"mode": "work"}, "mlx", True),
        ({"mode": "mlx"}, "vllm", False),  # a backend of the person's that is named like the mode
    ],
)
def test_mode_or_prefix_asks_for_the_engine(fields: dict[str, Any], kind: str | None, is_engine: bool) -> None:
    assert names_engine(settings(**fields), kind) is is_engine


def test_what_this_launch_names_wins_over_the_file() -> None:
    sources = {"mode": "config.toml", "base_url": "config.toml", "model": "--model"}
    by_file = Settings(mode="vllm", base_url="http://x", model="mlx/a", sources=sources)
    assert names_engine(by_file, "vllm")
    sources = {"mode": "config.toml", "base_url": "ANYCLAUDE_BASE_URL"}
    assert not names_engine(Settings(mode="mlx", base_url="http://x", sources=sources), "mlx")
    with pytest.raises(SettingError, match="leave out --base-url"):
        names_engine(settings(mode="mlx", base_url="http://x"), "mlx")


def test_an_address_given_for_one_launch_sets_the_files_mode_mlx_aside(tmp_path: Path) -> None:
    def nothing(exchange: Exchange) -> None:
        exchange.json(404, {})

    with ScriptedBackend(nothing) as backend:
        sources = {"mode": "config.toml", "base_url": "--base-url"}
        named = Settings(mode="mlx", base_url=backend.url, sources=sources)
        choice = asyncio.run(choose(named, tmp_path, [].append))
    assert (choice.target.kind, choice.model) == ("openai", "scripted")


def test_without_a_server_the_largest_known_model_that_fits_is_taken(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/other")
    make_hub_model(tmp_path, KNOWN[-1].name)
    make_hub_model(tmp_path, KNOWN[1].name)
    make_hub_model(tmp_path, KNOWN[0].name, n_bytes=3_000_000)
    choice = instead(tmp_path, engine_memory_mb=2)
    assert choice.model == KNOWN[1].name.rpartition("/")[2]
    assert choice.notes[0] == "no model server runs; the embedded engine runs a model of this machine (--mode mlx)"
    assert not choice.target.is_model_chosen


def test_of_others_the_one_used_last_is_taken_and_else_the_newest(tmp_path: Path) -> None:
    folders = {name: make_hub_model(tmp_path, f"org/{name}") for name in ("a", "b", "c")}
    used = {str(folders["a"]): 20.0, str(folders["b"]): 30.0}
    assert instead(tmp_path, used).model == "b"
    for age, name in enumerate(("c", "a", "b")):
        folder = folders[name]
        folder.touch()
        _set_age(folder, age * 100)
    assert instead(tmp_path).model == "c"


def test_a_folder_of_the_persons_own_counts_once_it_was_used(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/m")
    folder = make_model(tmp_path / "mine")
    assert instead(tmp_path, {}).model == "m"
    assert instead(tmp_path, {str(folder): 5.0, "/gone": 9.0}).model == "mine"


def _set_age(folder: Path, age_s: float) -> None:
    at = folder.stat().st_mtime - age_s
    os.utime(folder, (at, at))


def test_a_model_that_does_not_chat_is_taken_only_when_it_is_named(tmp_path: Path) -> None:
    snapshot = make_hub_model(tmp_path, "org/embeds")
    (snapshot / "tokenizer_config.json").resolve().write_text("{}")
    assert "no model for the engine is on this machine" in refused(tmp_path)
    assert "it has no chat template: it may refuse every prompt" in instead(tmp_path, model="org/embeds").notes


def test_where_no_model_is_the_command_that_downloads_one_is_named(tmp_path: Path) -> None:
    assert "anyclaude models pull mlx-community/" in refused(tmp_path, engine_memory_mb=40_000)
    assert "`anyclaude models recommend` tells more" in refused(tmp_path, engine_memory_mb=100)


def test_where_none_fits_the_smallest_is_named_with_its_size(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/large", n_bytes=2_000_000)
    message = refused(tmp_path, engine_memory_mb=1)
    assert "no model here fits: org/large takes 0.0 GB, and the engine may have 0.0 GB" in message


def test_a_model_that_the_settings_name_but_that_is_not_here_is_no_reason_to_take_another(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/other")
    assert "anyclaude models pull org/none" in refused(tmp_path, model="org/none")


def test_a_window_whose_state_would_not_fit_into_the_memory_is_cut_and_said_so(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/m", max_position_embeddings=262_144)  # 256 bytes of state a token
    choice = instead(tmp_path, model="org/m", engine_memory_mb=32)
    assert choice.window == choice.target.context_window == 48 * 1024
    assert any("a window of 49,152 of its 262,144 tokens" in note for note in choice.notes)
    assert instead(tmp_path, model="org/m", engine_memory_mb=1).window == 23 * 1024
    assert instead(tmp_path, model="org/m", engine_memory_mb=32, context_window=100_000).window == 100_000


def test_an_unknown_window_is_assumed_and_said_so(tmp_path: Path) -> None:
    make_hub_model(tmp_path, "org/m", max_position_embeddings=None)
    choice = instead(tmp_path, model="org/m")
    assert (choice.window, choice.target.context_window) == (65_536, None)
    assert any("assuming 65,536" in note for note in choice.notes)


def test_a_hostile_folder_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m", auto_map={"AutoModel": "run.Model"})
    with pytest.raises(ModelRefused, match="auto_map"):
        chosen(tmp_path, model=f"mlx/{folder}")


def test_a_model_that_is_not_here_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(NoBackend, match="anyclaude models pull org/none"):
        chosen(tmp_path, model="mlx/org/none")
    assert list(tmp_path.iterdir()) == []
