"""A model folder, checked before anything of it is loaded: safetensors and JSON only, nothing that runs code, every
size as announced, no link that leads elsewhere. It reads, and leaves nothing behind.

    python -m anyclaude.engine.files.folder FOLDER [--without-weights]

is the same for other rooms: one JSON object on standard output.
"""

import json
import stat
import sys
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from anyclaude.engine.files.weights_header import check_weights
from anyclaude.errors import ModelRefused

_MAX_JSON = 16 << 20
_MAX_TOKENIZER = 256 << 20
_MAX_DEPTH = 64
_MAX_ENTRIES = 10_000
_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
_READ = frozenset({".json", ".safetensors", ".jinja", ".model", ".txt"})
_RUNS_CODE = ("model_file", "auto_map")


class ModelFiles(Struct, frozen=True):
    """A folder that passed. `weights` are in the order of their names, `weights_bytes` the data in them."""

    folder: Path
    model_type: str
    weights: tuple[Path, ...]
    weights_bytes: int
    config: dict[str, Any]


def check_folder(folder: Path, *, has_weights: bool = True) -> ModelFiles:
    """Raises ModelRefused with what is wrong and what to do. Without `has_weights` they are yet to be downloaded."""
    try:
        return _checked(folder, has_weights=has_weights)
    except ModelRefused as error:
        raise ModelRefused(f"{folder}: {error.message}") from None
    except OSError as error:
        raise ModelRefused(f"{folder} cannot be read: {error.strerror or error}") from None


def _checked(folder: Path, *, has_weights: bool) -> ModelFiles:
    if not folder.is_dir():
        raise ModelRefused("there is no such folder")
    files = _files(folder)
    config = _read_object(files, "config.json")
    if config is None:
        raise ModelRefused("it has no config.json, so it is no model's folder")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelRefused("config.json does not say which kind of model it is (model_type)")
    for name in ("config.json", "tokenizer_config.json"):
        _check_runs_no_code(name, config if name == "config.json" else _read_object(files, name) or {})
    _read_object(files, "generation_config.json")
    _check_tokenizer(files)
    weights = _weights(files) if has_weights else []
    return ModelFiles(folder, model_type, tuple(weights), sum(check_weights(path) for path in weights), config)


def _files(folder: Path) -> dict[str, Path]:
    """What lies in the folder and would be read, by name."""
    found: dict[str, Path] = {}
    for number, path in enumerate(folder.iterdir()):
        if number >= _MAX_ENTRIES:
            raise ModelRefused(f"it holds more than {_MAX_ENTRIES:,} files: no model's folder")
        if path.suffix in _READ:
            _check_place(folder, path)
            found[path.name] = path
        elif path.suffix in _PICKLES:
            found[path.name] = path  # named in a message, never opened
    return dict(sorted(found.items()))


def _check_place(folder: Path, path: Path) -> None:
    """A file of the folder's own, or of the hub's cache: a snapshot is links into the `blobs` of its repository, which
    may in their turn be links into those of the whole cache."""
    try:
        place = path.resolve()
    except RuntimeError:  # a link that leads to itself
        raise ModelRefused(f"{path.name} is a link that leads nowhere") from None
    homes = [home := folder.resolve()]
    if home.parent.name == "snapshots":
        homes += [home.parent.parent / "blobs", home.parent.parent.parent / "blobs"]
    if not any(place.is_relative_to(home) for home in homes):
        raise ModelRefused(f"{path.name} is a link that leads out of the folder: put the file itself there")
    if not place.exists():
        raise ModelRefused(f"{path.name} is a link to a file that is not there: download the model again")
    if not stat.S_ISREG(place.stat().st_mode):
        raise ModelRefused(f"{path.name} is no regular file")


def _read_object(files: dict[str, Path], name: str) -> dict[str, Any] | None:
    """A JSON object of bounded size and depth; None where there is no such file."""
    path = files.get(name)
    if path is None:
        return None
    if path.stat().st_size > _MAX_JSON:
        raise ModelRefused(f"{name} is larger than {_MAX_JSON >> 20} MB")
    try:
        value: object = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ModelRefused(f"{name} is no JSON: download it again") from None
    except RecursionError:
        raise ModelRefused(f"{name} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ModelRefused(f"{name} is no JSON object")
    if _depth(value) > _MAX_DEPTH:
        raise ModelRefused(f"{name} is nested too deeply")
    return cast("dict[str, Any]", value)


def _depth(value: object) -> int:
    """Levels of nesting, counted without recursion."""
    depth, level = 0, [value]
    while level := [inner for outer in level for inner in _inner(outer)]:
        depth += 1
    return depth


def _inner(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).values())
    return cast("list[object]", value) if isinstance(value, list) else []


def _check_runs_no_code(name: str, fields: dict[str, Any]) -> None:
    for key in _RUNS_CODE:
        if fields.get(key) is not None:
            raise ModelRefused(
                f"{name} has {key}, which names Python code of the model's own; such code is never run. Take a "
                "conversion that needs none"
            )


def _check_tokenizer(files: dict[str, Path]) -> None:
    path = files.get("tokenizer.json")
    if path is None:
        raise ModelRefused("it has no tokenizer.json; take a conversion that has one")
    if path.stat().st_size > _MAX_TOKENIZER:
        raise ModelRefused(f"tokenizer.json is larger than {_MAX_TOKENIZER >> 20} MB")


def _weights(files: dict[str, Path]) -> list[Path]:
    """`model*.safetensors`, all that the index announces. Raises ModelRefused."""
    weights = [path for name, path in files.items() if name.startswith("model") and path.suffix == ".safetensors"]
    if not weights:
        pickles = [name for name, path in files.items() if path.suffix in _PICKLES]
        if pickles:
            raise ModelRefused(f"its weights are pickles ({pickles[0]}), which can run code; safetensors are needed")
        raise ModelRefused("it has no weights (model*.safetensors); was the download broken off?")
    shards = (_read_object(files, "model.safetensors.index.json") or {}).get("weight_map")
    announced = {str(name) for name in cast("dict[str, object]", shards).values()} if isinstance(shards, dict) else ()
    missing = sorted(set(announced) - {path.name for path in weights})
    if missing:
        raise ModelRefused(f"{len(missing)} of its files are missing ({missing[0][:100]}): download the model again")
    return weights


def main(arguments: list[str]) -> int:
    """Status 1 and the reason where the folder is refused."""
    try:
        found = check_folder(Path(arguments[0]), has_weights="--without-weights" not in arguments)
    except ModelRefused as error:
        answer: dict[str, Any] = {"refused": error.message}
    else:
        answer = {"model_type": found.model_type, "weights_bytes": found.weights_bytes}
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    return int("refused" in answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
