"""`anyclaude models ls|rm|load|unload|recommend`: the models on this machine and the engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyclaude.cli.confirm import is_confirmed
from anyclaude.cli.engine import loaded_models
from anyclaude.cli.show import clock, or_dash, print_columns, print_json, say
from anyclaude.config.settings import Settings
from anyclaude.errors import AnyclaudeError, EngineFailed, NoBackend, UsageError
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.local_model import hub_folder, repository_of
from anyclaude.launch.model_store import (
    PREFIX,
    LocalModel,
    find_model,
    is_hub_id,
    known_models,
    last_used,
    used_at,
)
from anyclaude.launch.recommend import MEMORY_SHARE, STATES, Advice, advise, gigabytes, this_machine
from anyclaude.launch.server import ServerClient, running
from anyclaude.paths import Folders

_SLOW = (
    "There is no accelerator that the engine could use: it computes on the CPU, and a prompt of 14,000 tokens can",
    "take many minutes the first time. What was read once is kept. A small model, or a server on a machine with a",
    "GPU, is the better choice.",
)


def list_local(line: CommandLine, folders: Folders, environ: Mapping[str, str]) -> int:
    hub = hub_folder(environ)
    used, loaded = last_used(folders.ledger), loaded_models(folders)
    rows = [local_row(model, used, loaded) for model in known_models(hub, used)]
    if "--json" in line.flags:
        print_json({"folder": str(hub), "models": rows})
    elif rows:
        table = [("model", "size", "context", "last used", "")]
        table += [
            (
                str(row["model"]),
                gigabytes(row["weights_bytes"]),
                or_dash(row["context_window"]),
                clock(row["used_at"]) if row["used_at"] else "-",
                ", ".join(_remarks(row)),
            )
            for row in rows
        ]
        print_columns(table, right=frozenset({1, 2}))
    else:
        print(f"no model is in {hub}; `anyclaude models recommend` names one that suits this machine")
    return 0


def local_row(model: LocalModel, used: Mapping[str, float], loaded: frozenset[str]) -> dict[str, Any]:
    return {
        "model": model.name,
        "folder": str(model.folder),
        "weights_bytes": model.weights_bytes,
        "context_window": model.context_window,
        "used_at": used_at(model, used),
        "chats": model.chats,
        "is_loaded": str(model.folder) in loaded,
    }


def _remarks(row: Mapping[str, Any]) -> list[str]:
    return ["loaded"] * row["is_loaded"] + ["no chat template"] * (not row["chats"])


def remove(line: CommandLine, folders: Folders, environ: Mapping[str, str]) -> int:
    """A model of the cache, also one whose download was broken off. A folder of the person's own stays theirs."""
    hub, name = hub_folder(environ), line.operands[0]
    name = _name_in_cache(name, hub)
    size = sum(path.stat().st_size for path in repository_of(name, hub).glob("blobs/*") if path.is_file())
    if not is_confirmed(line, f"delete {name} ({gigabytes(size)}) from {hub}?"):
        say("nothing was deleted")
        return 1
    from anyclaude.launch.download import forget

    _let_go(name, hub, folders)
    freed = forget(name, hub)
    if "--json" in line.flags:
        print_json({"removed": name, "freed_bytes": freed})
    else:
        print(f"{name} is deleted, {gigabytes(freed)}")
    return 0


def _name_in_cache(given: str, hub: Path) -> str:
    name = given.removeprefix(PREFIX)
    if is_hub_id(name) and repository_of(name, hub).is_dir():
        return name
    model = _here(given, hub)
    if not model.is_hub:
        raise UsageError(f"{model.folder} is a folder of your own; it is not anyclaude's to delete")
    return model.name


def _here(given: str, hub: Path) -> LocalModel:
    """For what is to go: no word of how to download it. Raises NoBackend."""
    name = given.removeprefix(PREFIX)
    try:
        return find_model(given, hub, Path.cwd())
    except NoBackend as error:
        raise NoBackend(error.message.removesuffix(f". To download it:\n  anyclaude models pull {name}")) from None


def _let_go(name: str, hub: Path, folders: Folders) -> None:
    """What is in memory goes first, where there is a gateway to ask; that it cannot be asked keeps nothing."""
    home = str(repository_of(name, hub)) + "/"
    names = [folder for folder in loaded_models(folders) if folder.startswith(home)]
    client = running(folders)
    if names and client is not None:
        try:
            client.engine("unload", names)
        except AnyclaudeError as error:
            say(error.message)


def load(line: CommandLine, folders: Folders, environ: Mapping[str, str]) -> int:
    model = find_model(line.operands[0], hub_folder(environ), Path.cwd())
    say(f"loading {model.name}")
    told = _gateway(folders).engine("load", [str(model.folder)])
    if "--json" in line.flags:
        print_json(told)
    else:
        print(f"{model.short_name} is loaded")
    return 0


def unload(line: CommandLine, folders: Folders, environ: Mapping[str, str]) -> int:
    """Status 1 where something still runs on one of them."""
    hub = hub_folder(environ)
    names = [str(_here(name, hub).folder) for name in line.operands]
    told = _gateway(folders).engine("unload", names) or {"unloaded": [], "busy": []}
    if "--json" in line.flags:
        print_json(told)
        return int(bool(told["busy"]))
    for folder in told["unloaded"]:
        print(f"{folder} is no longer in memory; what was kept of its prompts stays")
    for folder in told["busy"]:
        print(f"{folder} is in use: try again when its turns have ended")
    if not told["unloaded"] and not told["busy"]:
        print("it was not in memory" if names else "no model was in memory")
    return int(bool(told["busy"]))


def _gateway(folders: Folders) -> ServerClient:
    client = running(folders)
    if client is None:
        start = "it starts with a launch, `anyclaude --model mlx/NAME`, and the model with it"
        raise EngineFailed(f"no gateway runs, so there is no engine to ask; {start}")
    return client


def recommend(line: CommandLine, settings: Settings) -> int:
    advice = advise(this_machine(settings.engine_memory_mb))
    if "--json" in line.flags:
        print_json({"advice": advice, "memory_share": MEMORY_SHARE, "states": STATES})
        return 0
    machine = advice.machine
    print(f"memory {gigabytes(machine.memory_bytes)}, of which models and their state may take "
          f"{gigabytes(machine.budget_bytes)} (setting engine_memory_mb)\n")  # fmt: skip
    _print_table(advice)
    print(f"\nroom: tokens of one conversation whose state fits {STATES} times beside the weights (kept once, read and")
    print("joined), at most the model's window. Sizes of weights are approximate, nothing was measured here.\n")
    for text in _verdict(advice):
        print(text)
    return 0


def _print_table(advice: Advice) -> None:
    table = [("model", "weights", "state a token", "room", "")]
    table += [
        (
            each.model.name,
            f"~ {each.model.weights_bytes / 1e9:.0f} GB",
            f"{each.model.kv_bytes // 1024} KiB",
            f"{each.tokens:,}" if each.tokens else "none",
            "<" if each == advice.best else "",
        )
        for each in advice.all
    ]
    print_columns(table, right=frozenset({1, 2, 3}))


def _verdict(advice: Advice) -> list[str]:
    if advice.best is None:
        lines = [
            f"None of them has room for {advice.room:,} tokens here, and Claude Code's own prompt takes about 14,000.",
            "A server elsewhere may help: anyclaude --base-url URL",
        ]
    else:
        lines = [
            f"The largest with room for {min(advice.room, advice.best.model.window):,} tokens:",
            f"  anyclaude models pull {advice.best.model.name}",
        ]
    match advice.machine.accelerator:
        case "none":
            lines += ["", *_SLOW]
        case "cuda":
            lines += ["", "The memory of a GPU is not known here: set engine_memory_mb to what it has."]
        case "apple":
            pass
    return lines
