"""The embedded engine's part of the choice: which model on this machine it runs, and with which window."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from anyclaude.backends.seam import Target
from anyclaude.config.settings import Settings
from anyclaude.config.table import ENGINE_SETTINGS
from anyclaude.errors import NoBackend, SettingError
from anyclaude.launch.choice import ASSUMED_WINDOW, SMALL_WINDOW, Choice, output_limit, small_window_note
from anyclaude.launch.model_store import PREFIX, LocalModel, check_model, find_model, known_models, used_at
from anyclaude.launch.recommend import Machine, advise, gigabytes, rank, this_machine, tokens_that_fit

ENGINE_URL = "engine"  # where other modes have an address
_STEP = 1024  # windows are told in whole thousands
Used = Callable[[], Mapping[str, float]]


def names_engine(settings: Settings, kind: str | None) -> bool:
    """Whether this launch asks for the engine: by the mode's `kind`, or by a model `mlx/...` where neither option nor
    variable names a server. Raises SettingError where both are named."""
    by_model = settings.model is not None and settings.model.startswith(PREFIX)
    has_address, has_mode = _is_given(settings, "base_url"), _is_given(settings, "mode")
    if kind == "mlx":
        if has_address and has_mode:
            raise SettingError("mode mlx runs the model in a process of anyclaude's own: leave out --base-url")
        return not has_address
    return by_model and not has_address and not has_mode


def _is_given(settings: Settings, name: str) -> bool:
    """By option or variable: for this launch, and not for every one."""
    return settings.sources.get(name, "").startswith(("--", "ANYCLAUDE_"))


def engine_choice(settings: Settings, hub: Path, used: Used, *, is_named: bool) -> Choice:
    """Raises NoBackend, or ModelRefused for a folder that is broken or hostile. Without `is_named` no server runs, and
    nothing was asked for."""
    machine = this_machine(settings.engine_memory_mb)
    named = settings.model
    model = _best(hub, machine, used()) if named is None else find_model(named, hub, Path.cwd())
    check_model(model.folder)
    window = settings.context_window or _window(model, machine)
    target = Target(
        kind="mlx",
        base_url=ENGINE_URL,
        model=str(model.folder),
        is_model_chosen=settings.model is not None,
        context_window=window,
        max_output_tokens=settings.max_output_tokens or output_limit(window or ASSUMED_WINDOW, None),
        takes_images=False,
        silence_s=settings.backend_silence_s,
        engine_options=engine_options(settings),
    )
    notes = tuple(_notes(model, machine, window, is_named=is_named, is_set=settings.context_window is not None))
    return Choice(target, model.short_name, window or ASSUMED_WINDOW, notes)


def engine_options(settings: Settings) -> dict[str, int]:
    """What was set for the engine; what was not is the engine's own default."""
    values = {name: getattr(settings, name) for name in ENGINE_SETTINGS}
    return {name: value for name, value in values.items() if value is not None}


def _best(hub: Path, machine: Machine, used: Mapping[str, float]) -> LocalModel:
    """Of those that fit into the memory: the largest of the known ones, else the one used last, else the newest."""
    models = [model for model in known_models(hub, used) if model.chats]
    if not models:
        raise NoBackend(f"no model for the engine is on this machine. {pull_line(machine)}")
    fitting = [model for model in models if model.weights_bytes < machine.budget_bytes]
    if not fitting:
        least = min(models, key=lambda model: model.weights_bytes)
        raise NoBackend(
            f"no model here fits: {least.name} takes {gigabytes(least.weights_bytes)}, and the engine may have "
            f"{gigabytes(machine.budget_bytes)} (setting engine_memory_mb). {pull_line(machine)}"
        )
    known = [model for model in fitting if rank(model.name) is not None]
    if known:
        return min(known, key=lambda model: rank(model.name) or 0)
    return max(fitting, key=lambda model: (used_at(model, used) or 0.0, _changed_at(model)))


def _changed_at(model: LocalModel) -> float:
    return model.folder.stat().st_mtime


def pull_line(machine: Machine) -> str:
    """What to type for a model that suits the machine."""
    best = advise(machine).best
    if best is None:
        return "None that anyclaude knows suits this machine's memory; `anyclaude models recommend` tells more."
    size = gigabytes(best.model.weights_bytes)
    return f"One that suits this machine (about {size}):\n  anyclaude models pull {best.model.name}"


def _window(model: LocalModel, machine: Machine) -> int | None:
    """The model's own, or less where the state of so many tokens would not fit into the memory."""
    if model.context_window is None or model.kv_bytes is None:
        return model.context_window
    room = tokens_that_fit(machine, model.weights_bytes, model.kv_bytes) // _STEP * _STEP
    return min(model.context_window, max(room, SMALL_WINDOW // _STEP * _STEP))


def _notes(model: LocalModel, machine: Machine, window: int | None, *, is_named: bool, is_set: bool) -> Iterator[str]:
    if not is_named:
        yield "no model server runs; the embedded engine runs a model of this machine (--mode mlx)"
    yield f"{model.short_name} on the embedded engine ({model.folder})"
    if machine.accelerator == "none":
        yield "the engine computes on the CPU here: expect a long first prompt (`anyclaude models recommend`)"
    if model.weights_bytes >= machine.budget_bytes:
        takes, may_have = gigabytes(model.weights_bytes), gigabytes(machine.budget_bytes)
        yield f"its weights take {takes}; the engine may have {may_have}"
    if not model.chats:
        yield "it has no chat template: it may refuse every prompt"
    if window is None:
        yield f"it does not tell its context window; assuming {ASSUMED_WINDOW:,} (setting context_window)"
        return
    if model.context_window is not None and window < model.context_window:
        why = "as context_window says" if is_set else "by the memory (setting context_window)"
        yield f"a window of {window:,} of its {model.context_window:,} tokens, {why}"
    if model.context_window is not None and window > model.context_window:
        yield f"context_window is {window:,}, more than the {model.context_window:,} tokens that the model was made for"
    if window < SMALL_WINDOW:
        yield small_window_note(window)
