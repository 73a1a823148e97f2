"""The models on this machine that the engine could run: those of the Hugging Face cache, and folders that are named.

Everything is told by the cache's layout (`models--ORG--NAME/refs/main` names a folder below `snapshots`); nothing is
asked of the network, and nothing is downloaded.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from anyclaude.errors import LedgerFailed, ModelRefused, NoBackend
from anyclaude.launch.local_model import chats, kv_bytes_per_token, read_object
from anyclaude.telemetry.history import History
from anyclaude.wire.model_config import window_in

PREFIX = "mlx/"
_HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"[\w.-]{1,80}", re.ASCII)


class LocalModel(Struct, frozen=True):
    """`name` is a hub id or a folder; `folder` is absolute, and what the engine is told to load. Sizes in bytes,
    `kv_bytes` for one token; None is what the model does not tell."""

    name: str
    folder: Path
    weights_bytes: int
    context_window: int | None
    kv_bytes: int | None
    chats: bool
    is_hub: bool

    @property
    def short_name(self) -> str:
        """What the client shows."""
        return self.name.rstrip("/").rpartition("/")[2] or self.name


def hub_models(hub: Path) -> list[LocalModel]:
    """Those that are whole enough to be run, by name. A download that was broken off is not among them."""
    found = (_in_cache(repository) for repository in sorted(hub.glob("models--*")))
    return [model for model in found if model is not None]


def known_models(hub: Path, used: Mapping[str, float]) -> list[LocalModel]:
    """Those of the hub, and folders of the person's own that a turn has `used`."""
    own = [Path(folder) for folder in sorted(used) if folder.startswith("/") and "/snapshots/" not in folder]
    described = (_described(str(folder), folder, is_hub=False) for folder in own)
    return [*hub_models(hub), *(model for model in described if model is not None)]


def find_model(given: str, hub: Path, project: Path) -> LocalModel:
    """The model of that name: a folder, a hub id, or the last part of a hub id that only one has. Raises NoBackend with
    what to do; nothing is downloaded."""
    name = given.removeprefix(PREFIX)
    if not name.strip():
        raise NoBackend("mlx/ needs a model: mlx/ORG/NAME of the hub, or mlx//FOLDER")
    if is_folder_name(name):
        folder = Path(os.path.abspath(project / Path(name).expanduser()))  # noqa: PTH100 (resolve() follows links)
        return _in_folder(folder)
    models = hub_models(hub)
    same = [model for model in models if model.name == name]
    same = same or [model for model in models if model.short_name.lower() == name.lower()]
    if len(same) == 1:
        return same[0]
    if same:
        raise NoBackend(f"{name} is the name of several: {', '.join(model.name for model in same)}")
    if (project / name).is_dir():
        raise NoBackend(f"{name} is no model of the hub on this machine. For the folder of that name: mlx/./{name}")
    if not is_hub_id(name):
        raise NoBackend(f"{name!r} is neither a hub id (ORG/NAME) nor a folder (/..., ./... or ~/...)")
    raise NoBackend(f"the model {name} is not on this machine{_meant(name, models)}. To download it:\n"
                    f"  anyclaude models pull {name}")  # fmt: skip


def _meant(name: str, models: Sequence[LocalModel]) -> str:
    """What is here under almost the same name."""
    names = {model.name.lower(): model.name for model in models}
    names |= {model.short_name.lower(): model.name for model in models if "/" not in name}
    close = dict.fromkeys(names[found] for found in get_close_matches(name.lower(), names))
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def is_folder_name(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in (".", "..")


def is_hub_id(name: str) -> bool:
    return (
        _HUB_ID.fullmatch(name) is not None and len(name) <= 96 and not {"--", ".."} & set(re.findall(r"--|\.\.", name))
    )


def _in_cache(repository: Path) -> LocalModel | None:
    name = repository.name.removeprefix("models--").replace("--", "/")
    try:
        commit = (repository / "refs" / "main").read_text("ascii").strip()
    except (OSError, ValueError):
        return None
    if not _COMMIT.fullmatch(commit):
        return None
    return _described(name, repository / "snapshots" / commit, is_hub=True)


def _in_folder(folder: Path) -> LocalModel:
    if not folder.is_dir():
        raise NoBackend(f"{folder} is not a folder")
    model = _described(str(folder), folder, is_hub=False)
    if model is None:
        check_model(folder)
        raise NoBackend(f"{folder} is not a model's folder")
    return model


def _described(name: str, folder: Path, *, is_hub: bool) -> LocalModel | None:
    """None for what lacks a part that every model has."""
    config = read_object(folder / "config.json")
    weights = [path for path in folder.glob("model*.safetensors") if path.is_file()]
    shards = read_object(folder / "model.safetensors.index.json").get("weight_map")
    announced = set(cast("dict[str, object]", shards).values()) if isinstance(shards, dict) else set[object]()
    is_whole = bool(weights) and announced <= {path.name for path in weights}
    if "model_type" not in config or not is_whole or not (folder / "tokenizer.json").is_file():
        return None
    return LocalModel(
        name=name,
        folder=folder,
        weights_bytes=sum(path.stat().st_size for path in weights),
        context_window=window_in(config),
        kv_bytes=kv_bytes_per_token(config),
        chats=chats(folder),
        is_hub=is_hub,
    )


def check_model(folder: Path, *, has_weights: bool = True) -> None:
    """The engine's own check of a folder, in a process of its own. Raises ModelRefused."""
    command = [sys.executable, "-P", "-m", "anyclaude.engine.files.folder", str(folder)]
    command += [] if has_weights else ["--without-weights"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise ModelRefused(f"{folder} could not be checked: {last}") from None
    if "refused" in answer:
        raise ModelRefused(answer["refused"])


def last_used(ledger: Path) -> dict[str, float]:
    """When turns of ours last used each model's folder. A ledger that cannot be read tells nothing."""
    if not ledger.exists():
        return {}
    try:
        with History(ledger) as history:
            return history.last_used("mlx")
    except LedgerFailed:
        return {}


def used_at(model: LocalModel, used: Mapping[str, float]) -> float | None:
    """When a turn of ours last used it, in seconds since 1970. `used` is by folder; every snapshot of a hub model
    counts."""
    home = str(model.folder.parent) + "/" if model.is_hub else None
    times = [at for folder, at in used.items() if folder == str(model.folder) or (home and folder.startswith(home))]
    return max(times, default=None)
