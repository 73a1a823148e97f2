"""`make demo`: the real Claude Code on anyclaude's own engine, in a scratch folder, and what was measured.

    python -m demo.run

The model is made here in seconds and has random weights: it answers with random words. What is real is everything
else: the client, its prompt of some 15,000 tokens, the engine, its blocks in memory and on disk, and the figures.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyclaude.cli.status import print_turns
from demo.mlx_server import has_openblas
from demo.tiny_model import make_tiny_model

ROOT = Path(__file__).parent.parent / ".demo"
BEFORE_RESTART = (
    ("a first question", ["-p", "Say hello to this folder."]),
    ("the same conversation, continued", ["--continue", "-p", "And once more, please."]),
)
AFTER_RESTART = (
    ("the same conversation, after a restart of everything", ["--continue", "-p", "Are you still there?"]),
    ("a new conversation in the same folder", ["-p", "Something else."]),
)


def main() -> int:
    shutil.rmtree(ROOT / "home", ignore_errors=True)
    work = ROOT / "home" / "scratch"
    work.mkdir(parents=True)
    environment = demo_environment(ROOT / "home")
    print("anyclaude demo: the real Claude Code and anyclaude's own engine on this machine, nothing else.")
    print("The model is a toy with random weights, made here: expect random words, and look at the figures.\n")
    if sys.platform == "linux" and not has_openblas():
        print("(libopenblas0-pthread is not installed: reading the prompt takes about five times longer)\n")
    model = make_tiny_model(ROOT / "tiny-random-qwen3")
    try:
        status = _run_prompts(BEFORE_RESTART, model, work, environment)
        turns = _turns(environment)
        if status == 0:
            print(
                "gateway and engine are stopped; what they know of the prompt is on disk:\n  $ anyclaude stop --force"
            )
            _anyclaude(["stop", "--force"], work, environment)
            print(flush=True)
            status = _run_prompts(AFTER_RESTART, model, work, environment)
        _print_turns([*turns, *_turns(environment)], environment)
    finally:
        _anyclaude(["stop", "--force"], work, environment, capture=True)
    print("\nTry it with a model of your own:  .venv/bin/anyclaude  (and .venv/bin/anyclaude --help)")
    return status


def _run_prompts(prompts: Sequence[tuple[str, list[str]]], model: Path, work: Path, environment: dict[str, str]) -> int:
    for title, arguments in prompts:
        command = ["--mode", "mlx", "--model", str(model), *arguments]
        print(f"{title}:\n  $ anyclaude {' '.join(command)}", flush=True)
        started = time.monotonic()
        done = _anyclaude(command, work, environment)
        print(f"  ({time.monotonic() - started:.1f} s in all, start of the client included)\n", flush=True)
        if done.returncode != 0:
            print(f"Claude Code ended with status {done.returncode}; the gateway's log: {ROOT}/home/state/anyclaude")
            return done.returncode
    return 0


def _turns(environment: dict[str, str]) -> list[dict[str, Any]]:
    answer = _anyclaude(["status", "--json"], ROOT, environment, capture=True)
    return [turn for server in json.loads(answer.stdout)["servers"] for turn in server["turns"]]


def _print_turns(turns: list[dict[str, Any]], environment: dict[str, str]) -> None:
    print("Measured (tokens as the engine counted them; first = until the first piece of the answer):\n")
    print_turns(turns)
    if len(turns) > 1 and turns[0]["tokens_prefilled"] and turns[-1]["tokens_prefilled"] is not None:
        first, last = turns[0]["tokens_prefilled"], turns[-1]["tokens_prefilled"]
        print(f"\nThe first turn read {first:,} tokens, the last one {last:,}. Why:")
        print("  $ anyclaude cache why", flush=True)
        _anyclaude(["cache", "why"], ROOT, environment)


def _anyclaude(
    arguments: list[str], folder: Path, environment: dict[str, str], *, capture: bool = False
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "anyclaude", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=capture, text=True, check=False
    )


def demo_environment(home: Path) -> dict[str, str]:
    """Folders of its own for everything, so that nothing of the person's is read or written."""
    runtime = home / "runtime"
    runtime.mkdir(parents=True, mode=0o700)
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("ANYCLAUDE_", "CLAUDE", "ANTHROPIC"))
    }
    client = shutil.which("claude") or str(Path(sys.executable).parent / "claude")
    return ours | {
        "HOME": str(home),
        "CLAUDE_CONFIG_DIR": str(home / "claude"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(runtime),
        "ANYCLAUDE_CLIENT": client,
        "CLAUDE_CODE_MAX_RETRIES": "2",
    }


if __name__ == "__main__":
    sys.exit(main())
