"""Puts the pinned Claude Code into the virtual environment, where tests and the demo find it.

    python -m demo.client .venv/bin

The claude-agent-sdk package brings the very binary that npm installs; a link is all that is needed. If the package has
none for this platform, npm installs the same version.
"""

import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "@anthropic-ai/claude-code@2.1.330"


def install_client(folder: Path) -> Path:
    """`folder`/claude, linked to the bundled binary, else installed by npm."""
    link = folder / "claude"
    target = bundled_client() or _install_with_npm(folder.parent / "client")
    link.unlink(missing_ok=True)
    link.symlink_to(target)
    return link


def bundled_client() -> Path | None:
    spec = find_spec("claude_agent_sdk")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "_bundled" / "claude"
    return path if path.exists() else None


def _install_with_npm(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    subprocess.run(["npm", "install", "--silent", "--prefix", str(folder), "--no-save", PACKAGE], check=True)
    return (folder / "node_modules" / ".bin" / "claude").resolve()


if __name__ == "__main__":
    install_client(Path(sys.argv[1]).resolve())
    print(f"Claude Code is ready (claude-agent-sdk {version('claude-agent-sdk')})")
