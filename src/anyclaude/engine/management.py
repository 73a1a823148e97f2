"""What a person may ask of the engine: its figures, its models, its blocks. On the thread of models."""

from collections.abc import Callable
from pathlib import Path

from anyclaude.engine.files.folder import check_folder
from anyclaude.engine.owner import Owner, Steps, Value
from anyclaude.engine.selftest import selftest
from anyclaude.engine.verify import verification
from anyclaude.errors import ModelRefused
from anyclaude.wire.frames import Ask


def manage(owner: Owner, ask: Ask, forget_turns: Callable[[], None]) -> Value | Steps:
    """The answer, or what is wrong as `problem`; what takes long comes in steps."""
    match ask.what:
        case "statistics":
            return owner.statistics()
        case "models":
            return {"models": owner.loaded_models()}
        case "unload":
            return _unload(owner, ask.names)
        case "cache.ls":
            return {"entries": owner.cache.ls()}
        case "cache.pin" | "cache.unpin" | "cache.rm" | "cache.clear" if problem := _kept(owner):
            return {"problem": problem}
        case "cache.pin":
            return {"pinned": [name for name in ask.names if owner.cache.pin(name)]}
        case "cache.unpin":
            return {"unpinned": [name for name in ask.names if owner.cache.unpin(name)]}
        case "cache.rm":
            return {"removed": sum(owner.cache.remove(name) for name in ask.names)}
        case "cache.clear":
            forget_turns()
            return {"removed": owner.cache.clear()}
        case "cache.verify":
            return verification(owner.cache, owner.models)
        case "selftest":
            return _selftest(owner, ask.names)


def _kept(owner: Owner) -> str:
    """Why what is on disk would stay as it is, whatever was asked; empty where it would not."""
    blocks = owner.folder / "blocks"
    if problem := owner.cache.problem:
        return f"nothing was changed in {blocks}: {problem}"
    if not owner.options.kv_disk_mb and any(blocks.glob("*.kv")):
        return (
            f"nothing was changed: with kv_disk_mb = 0 the engine leaves alone what {blocks} already holds; delete it"
        )
    return ""


def _selftest(owner: Owner, names: tuple[str, ...]) -> Value:
    try:
        return selftest(check_folder(Path(names[0])).folder if names else None, owner.folder)
    except ModelRefused as error:
        return {"problem": error.message}


def _unload(owner: Owner, names: tuple[str, ...]) -> Value:
    """All that nothing runs on, where none is named."""
    busy = {model.folder for model in owner.scheduler.models_in_use}
    wanted = [Path(name) for name in names] or [model.folder for model in owner.models]
    return {
        "unloaded": [str(folder) for folder in wanted if folder not in busy and owner.models.unload(folder)],
        "busy": [str(folder) for folder in wanted if folder in busy],
    }
