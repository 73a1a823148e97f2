"""The process environment: read here, and in `launch`, nowhere else."""

import os
from collections.abc import Mapping

from anyclaude.paths import Folders, user_folders


def environment() -> Mapping[str, str]:
    return os.environ


def own_folders() -> Folders:
    """Ours, made if missing. Raises UnsafeFolder."""
    return user_folders(os.environ.get("XDG_RUNTIME_DIR")).make()
