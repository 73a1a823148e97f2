"""The launches' private settings files: named after the process that the file is for, deleted when it is gone."""

import secrets
import time
from pathlib import Path

from anyclaude.paths import private_folder, write_private
from anyclaude.server.process import is_same_process, process_start
from anyclaude.server.sessions import LINGER_S


def write_overlay_file(folder: Path, data: bytes, *, pid: int, lingers: bool) -> Path:
    private_folder(folder)
    owner = "background" if lingers else f"{pid}-{process_start(pid):.2f}"
    path = folder / f"{owner}-{secrets.token_hex(4)}.json"
    write_private(path, data)
    return path


def delete_dead_overlays(folder: Path) -> None:
    for path in folder.glob("[0-9]*-*-*.json"):
        pid, started, _ = path.stem.split("-")
        if not is_same_process(int(pid), float(started)):
            path.unlink(missing_ok=True)
    for path in folder.glob("background-*.json"):
        if time.time() - path.stat().st_mtime > LINGER_S:
            path.unlink(missing_ok=True)
