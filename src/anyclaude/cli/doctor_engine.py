"""The embedded engine's part of `anyclaude doctor`: what it has to work with, and with `--engine` a trial of it."""

import ctypes.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anyclaude.cli.engine import ask_own
from anyclaude.cli.finding import Finding
from anyclaude.cli.show import print_json
from anyclaude.config.environment import environment
from anyclaude.config.settings import Settings, read_settings
from anyclaude.errors import EngineFailed
from anyclaude.launch.arguments import CommandLine
from anyclaude.launch.engine_choice import pull_line
from anyclaude.launch.local_model import hub_folder
from anyclaude.launch.model_store import LocalModel, find_model
from anyclaude.launch.recommend import gigabytes, this_machine
from anyclaude.paths import Folders

_BLAS_PACKAGE = "libopenblas0-pthread"
_TOLERANCE = 1e-2  # of log-probabilities, for weights of 16 bits


def engine_findings(settings: Settings, models: Sequence[LocalModel]) -> Iterator[Finding]:
    """`models` are those of this machine that chat."""
    machine = this_machine(settings.engine_memory_mb)
    yield _models(models, pull_line(machine))
    for model in models:
        if model.weights_bytes >= machine.budget_bytes:
            what = f"{model.name} takes {gigabytes(model.weights_bytes)}, the engine may have "
            do = "setting engine_memory_mb, if the machine has more to give; else a smaller model"
            yield Finding("note", "engine", f"{what}{gigabytes(machine.budget_bytes)}", do)
    if machine.accelerator == "none":
        yield _blas()
    if machine.accelerator == "cuda" and settings.engine_memory_mb is None:
        do = "set engine_memory_mb to what the GPU has"
        yield Finding("note", "engine", "MLX for CUDA is installed; the memory of the GPU is not known here", do)


def _models(models: Sequence[LocalModel], line: str) -> Finding:
    if not models:
        return Finding("note", "engine", "no model for the embedded engine is on this machine", line)
    names = ", ".join(model.name for model in models[:5]) + (" and others" if len(models) > 5 else "")
    return Finding("ok", "engine", f"{len(models)} model(s) for the embedded engine: {names}")


def _blas() -> Finding:
    library = ctypes.util.find_library("openblas")
    if library is not None:
        return Finding("ok", "engine", f"computes on the CPU, with {library}")
    do = f"install OpenBLAS: apt-get install {_BLAS_PACKAGE} (Debian, Ubuntu), or your system's package of it"
    return Finding(
        "note", "engine", "computes on the CPU without OpenBLAS: prompts are read many times more slowly", do
    )


def try_engine(line: CommandLine, folders: Folders) -> int:
    """Status 1 where the engine gives wrong answers or none. With `--model` on that model, else on random weights."""
    environ = environment()
    settings = read_settings(line.options, environ, folders.settings_file)
    names: tuple[str, ...] = ()
    if "model" in line.options:
        names = (str(find_model(line.options["model"], hub_folder(environ), Path.cwd()).folder),)
    report = ask_own("selftest", names, settings, folders)
    if "problem" in report:
        raise EngineFailed(report["problem"])
    problems = list(_problems(report))
    if "--json" in line.flags:
        print_json(report | {"problems": problems})
    else:
        _print(report)
        print(f"\nproblem: {'; '.join(problems)}" if problems else "\nthe engine works on this machine")
        print("the same as a report to send: anyclaude doctor --engine --json")
    return int(bool(problems))


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    parity, mask = report["parity"], report["mask"]
    if not parity["equal_tokens"]:
        yield "a prompt from the cache is answered otherwise than the same prompt read afresh"
    if parity["largest_difference"] > _TOLERANCE:
        yield f"log-probabilities differ by {parity['largest_difference']:.2g}"
    if not mask["holds"]:
        yield "a token that was forbidden was chosen"


def _print(report: Mapping[str, Any]) -> None:
    machine, parity, disk, memory = report["machine"], report["parity"], report["reload"], report["memory"]
    alike = f"{parity['tokens']:,} tokens from blocks answered alike: {_yes(parity['equal_tokens'])}"
    rows = (
        ("machine", f"{machine['system']} ({machine['processor']}), {machine['device']}"),
        ("versions", f"mlx {machine['mlx']}, mlx-lm {machine['mlx_lm']}, Python {machine['python']}"),
        ("model", report["model"]),
        ("parity", f"{alike}; largest difference {parity['largest_difference']:.2g}"),
        ("speed", f"read in {parity['read_s']:.3f} s, put back from blocks in {parity['restore_s']:.3f} s"),
        ("mask", f"holds: {_yes(report['mask']['holds'])}, {report['mask']['seconds'] * 1000:.2f} ms"),
        ("disk", f"{disk['bytes'] / 1e6:.0f} MB written in {disk['write_s']:.2f} s, read in {disk['read_s']:.2f} s"),
        ("memory", f"{memory['peak_bytes'] / 1e6:.0f} MB at the peak"),
    )
    for name, text in rows:
        print(f"  {name:<9} {text}")


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
