"""Models in memory: loaded on first use, under a budget, gone when unloaded, and refused when they are broken."""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import pytest

from anyclaude.engine.model.models import Models, Wanted
from anyclaude.engine.model.sampling import Defaults
from anyclaude.engine.model.state import Copied
from anyclaude.errors import ModelRefused
from tests.support.models import FAMILIES, Family, random_model
from tests.support.rows import Bench, some_ids

NOBODY: frozenset[Path] = frozenset()
GROWN = 100_000  # what is left of anything but weights is less


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("models")
    return [random_model(root / str(seed), "qwen3", seed=seed) for seed in range(3)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def wanted(folder: Path, fingerprint: bytes = b"one") -> Wanted:
    return Wanted(folder, fingerprint, frozenset(), Defaults(), (folder / "model.safetensors").stat().st_size)


def models(n_fit: float, folder: Path) -> Models:
    return Models(int(n_fit * wanted(folder).weights_bytes), Copied(), Clock())


def resident(loaded: Models) -> set[str]:
    return {model.folder.name for model in loaded}


def test_a_model_is_loaded_once_and_its_bytes_are_those_of_its_weights(folders: list[Path]) -> None:
    loaded = models(3, folders[0])
    before = mx.get_active_memory()
    first = loaded.get(wanted(folders[0]), NOBODY)
    assert loaded.get(wanted(folders[0]), NOBODY) is first
    assert loaded.n_loads == 1
    header = 10_000
    assert 0 <= wanted(folders[0]).weights_bytes - first.nbytes < header
    assert 0 <= mx.get_active_memory() - before - first.nbytes < GROWN


def test_the_least_recently_used_makes_room(folders: list[Path]) -> None:
    loaded = models(2, folders[0])
    for n in (0, 1, 0, 2):
        loaded.get(wanted(folders[n]), NOBODY)
    assert resident(loaded) == {"0", "2"}
    assert loaded.n_loads == 3


def test_models_in_use_stay_even_over_the_budget(folders: list[Path]) -> None:
    loaded = models(1, folders[0])
    for folder in folders:
        loaded.get(wanted(folder), frozenset(folders[:2]))
    assert resident(loaded) == {"0", "1", "2"}
    loaded.get(wanted(folders[2]), NOBODY)
    loaded.unload(folders[2])
    loaded.get(wanted(folders[2]), frozenset(folders[1:2]))
    assert resident(loaded) == {"1", "2"}


def test_room_is_made_before_the_next_is_loaded(folders: list[Path]) -> None:
    """Never are the weights of both in memory."""
    loaded = models(1, folders[0])
    n_bytes = loaded.get(wanted(folders[0]), NOBODY).nbytes
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    loaded.get(wanted(folders[1]), NOBODY)
    assert mx.get_peak_memory() < before + n_bytes // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_of_an_unloaded_model_is_left_and_it_comes_back_the_same(tmp_path: Path, family: Family) -> None:
    bench = Bench()
    folder = random_model(tmp_path / "model", family)
    before = mx.get_active_memory()
    said = bench.generate(bench.model(folder), some_ids(50)).generated
    held = bench.cache.statistics().held_bytes
    bench.done.clear()  # rows know their model
    assert bench.models.unload(folder)
    assert mx.get_active_memory() - before - held < GROWN
    assert not bench.models.unload(folder)
    again = bench.generate(bench.model(folder), some_ids(50))
    assert (again.n_cached, again.generated) == (49, said)
    assert bench.models.n_loads == 2


def test_a_folder_that_has_changed_is_loaded_again_and_the_old_weights_go_first(
    folders: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[0], folder)
    loaded = models(9, folder)
    n_bytes = loaded.get(wanted(folder), NOBODY).nbytes
    shutil.copy(folders[1] / "model.safetensors", folder)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    changed = loaded.get(wanted(folder, b"two"), NOBODY)
    assert list(loaded) == [changed]
    assert mx.get_peak_memory() < before + n_bytes // 2


def test_idle_models_go_one_by_one_the_least_recently_used_first(folders: list[Path]) -> None:
    loaded = models(9, folders[0])
    for n in (2, 1, 0):
        loaded.get(wanted(folders[n]), NOBODY)
    in_use = frozenset(folders[2:])
    left: list[set[str]] = []
    while loaded.unload_idle(in_use):
        left.append(resident(loaded))
    assert left == [{"0", "2"}, {"2"}]


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5_000])


def one_missing(folder: Path) -> None:
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    weights.pop("model.layers.1.self_attn.q_proj.weight")
    mx.save_safetensors(str(folder / "model.safetensors"), weights)


def wrong_shape(folder: Path) -> None:
    edit(folder, intermediate_size=64)


def unknown_kind(folder: Path) -> None:
    edit(folder, model_type="no_such_model")


def no_layers(folder: Path) -> None:
    edit(folder, num_hidden_layers="two")


def heads_that_do_not_divide(folder: Path) -> None:
    edit(folder, num_attention_heads=3)


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def own_code(folder: Path) -> None:
    (folder / "model.py").write_text("raise SystemExit('ran')")
    edit(folder, model_file="model.py")


def edit(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | fields))


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        one_missing,
        wrong_shape,
        unknown_kind,
        no_layers,
        heads_that_do_not_divide,
        no_weights,
        no_json,
        own_code,
    ],
)
def test_a_broken_folder_is_refused_and_leaves_nothing_behind(
    folders: list[Path], tmp_path: Path, damage: object
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[0], folder)
    asked = wanted(folder)
    assert callable(damage)
    damage(folder)
    loaded = models(9, folders[0])
    loaded.get(wanted(folders[0]), NOBODY)
    before = mx.get_active_memory()
    with pytest.raises(ModelRefused, match=str(folder)):
        loaded.get(asked, NOBODY)
    assert resident(loaded) == {"0"}
    assert mx.get_active_memory() - before < GROWN


def test_a_model_that_is_loaded_but_cannot_run_is_refused(tmp_path: Path) -> None:
    """On the CPU MLX computes mixtures of experts in float32 only."""
    if mx.default_device() != mx.cpu:
        pytest.skip("this device computes them")
    folder = random_model(tmp_path / "model", "gpt_oss", dtype="bfloat16")
    loaded = models(9, folder)
    before = mx.get_active_memory()
    with pytest.raises(ModelRefused, match=r"does not run: .*float32"):
        loaded.get(wanted(folder), NOBODY)
    assert mx.get_active_memory() - before < GROWN
