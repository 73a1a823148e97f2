"""Models from the Hugging Face hub into its cache, by huggingface_hub and its own rules for tokens, mirrors and offline
use. Weights as safetensors, and what a tokenizer needs; never Python.

The small files come first and are checked, so that a model that would be refused costs no gigabytes.
"""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx2
from msgspec import Struct

from anyclaude import __version__
from anyclaude.errors import DownloadFailed, ModelRefused
from anyclaude.launch.local_model import repository_of
from anyclaude.launch.model_store import check_model, is_hub_id
from anyclaude.launch.weights import Remote, fetch

if TYPE_CHECKING:
    from tqdm import tqdm

_SMALL = ("*.json", "*.jinja", "*.txt", "tokenizer.model")
_WEIGHTS = "model*.safetensors"
_SPARE_BYTES = 1 << 30


class Progress(Protocol):
    """Told from several threads. `begin` has the bytes of weights that are yet to come; what an earlier try has of them
    counts at once."""

    def begin(self, total_bytes: int) -> None: ...

    def add(self, n_bytes: int) -> None: ...


class Pulled(Struct, frozen=True):
    """`n_bytes` were downloaded now; 0 where everything was here already."""

    folder: Path
    n_bytes: int


def pull(name: str, hub: Path, progress: Progress) -> Pulled:
    """Raises DownloadFailed, or ModelRefused where it is no model for the engine: then nothing of it is left that was
    not there before."""
    if not is_hub_id(name):
        raise DownloadFailed(f"{name!r} is no hub id: it must be ORG/NAME, as on https://huggingface.co/models")
    was_here = repository_of(name, hub).exists()
    try:
        return _pulled(name, hub, progress)
    except ModelRefused:
        if not was_here:
            forget(name, hub)
        raise


def _pulled(name: str, hub: Path, progress: Progress) -> Pulled:
    wanted = _told(name, lambda: _snapshot(name, hub, [*_SMALL, _WEIGHTS], dry_run=True))
    if not any(_is_weights(file.filename) for file in wanted):
        raise ModelRefused(
            f"{name} has no weights as safetensors (model*.safetensors); take a conversion that has them"
        )
    n_bytes = sum(file.file_size or 0 for file in wanted if file.will_download)
    _check_room(name, hub, n_bytes)
    folder = Path(_told(name, lambda: _snapshot(name, hub, list(_SMALL))))
    check_model(folder, has_weights=False)
    weights = [file for file in wanted if file.will_download and _is_weights(file.filename)]
    progress.begin(sum(file.file_size or 0 for file in weights))
    for file in weights:
        _told(name, lambda file=file: _fetch(name, hub, file.filename, file.commit_hash, progress.add))
    folder = Path(_told(name, lambda: _snapshot(name, hub, [*_SMALL, _WEIGHTS])))
    check_model(folder)
    return Pulled(folder, n_bytes)


def _is_weights(name: str) -> bool:
    return Path(name).match(_WEIGHTS)


def _snapshot(name: str, hub: Path, patterns: list[str], *, dry_run: bool = False) -> Any:
    """Subfolders are left out: the engine reads none."""
    return _hub().snapshot_download(
        name,
        cache_dir=hub,
        allow_patterns=patterns,
        ignore_patterns=["*/*"],
        library_name="anyclaude",
        library_version=__version__,
        max_workers=4,
        tqdm_class=_silent(),
        dry_run=dry_run,
    )


def _fetch(name: str, hub: Path, file: str, commit: str, add: Callable[[int], None]) -> None:
    library = _hub()
    url = library.hf_hub_url(name, file, revision=commit)
    found = library.get_hf_file_metadata(url)
    if found.etag is None or found.size is None:
        raise DownloadFailed(f"{library.constants.ENDPOINT} does not tell the size of {file}")
    headers = library.utils.build_hf_headers(library_name="anyclaude", library_version=__version__)
    remote = Remote(file, url, found.etag, found.size)
    fetch(remote, repository_of(name, hub) / "blobs", headers, add, library.utils.hf_raise_for_status)


def _hub() -> Any:
    """Imported when it is used, which takes a while; told to send no telemetry before it reads its variables."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_UPDATE_CHECK", "1")
    import huggingface_hub
    from huggingface_hub import constants, errors, utils  # loaded on demand: named, they are attributes of the package
    from huggingface_hub.utils import logging

    assert all((constants, errors, utils))
    logging.set_verbosity_error()  # what matters comes as an error
    return huggingface_hub


def _told(name: str, download: Callable[[], Any]) -> Any:
    """The library's errors as one sentence with what to do."""
    hub = _hub()
    try:
        return download()
    except (OSError, ValueError, httpx2.HTTPError, hub.errors.XetDownloadError) as error:
        raise DownloadFailed(_sentence(name, error)) from error


def _sentence(name: str, error: BaseException) -> str:
    errors = _hub().errors
    cause = error.__cause__ if isinstance(error, errors.DryRunError | errors.LocalEntryNotFoundError) else None
    error = cause or error
    endpoint = _hub().constants.ENDPOINT
    match error:
        case errors.OfflineModeIsEnabled():
            return f"{name} is not downloaded, because HF_HUB_OFFLINE is set; unset it for this command"
        case errors.GatedRepoError():
            return f"{name} has terms to accept first: {endpoint}/{name}. Then log in: hf auth login (or HF_TOKEN)"
        case errors.RepositoryNotFoundError() | errors.HfHubHTTPError(response=httpx2.Response(status_code=401 | 403)):
            return f"{endpoint} has no model {name}, or shows it to others only: hf auth login (or HF_TOKEN)"
        case errors.HfHubHTTPError():
            return f"{endpoint} answered HTTP {error.response.status_code} for {name}; {_GOES_ON}"
        case httpx2.HTTPError():
            return f"{endpoint} cannot be reached or broke off ({_first_line(error)}); {_GOES_ON}"
        case OSError(errno=errno.ENOSPC):
            return f"the disk is full; make room, and {_GOES_ON}"
        case _:
            return f"{name} could not be downloaded: {_first_line(error)}; {_GOES_ON}"


_GOES_ON = "the same command goes on where this one stopped"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check_room(name: str, hub: Path, n_bytes: int) -> None:
    place = next(folder for folder in (hub, *hub.parents) if folder.exists())
    free = shutil.disk_usage(place).free
    if n_bytes + _SPARE_BYTES > free:
        need = f"{name} needs {n_bytes / 1e9:.1f} GB and one to spare; {place} has {free / 1e9:.1f} GB"
        raise DownloadFailed(f"{need}. Make room, or move the cache with HF_HUB_CACHE")


def _silent() -> "type[tqdm[Any]]":
    """A bar for the library that shows nothing: what it fetches itself is small."""
    from tqdm import tqdm

    class Silent(tqdm):  # pyright: ignore[reportMissingTypeArgument]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"disable": True}))  # pyright: ignore[reportUnknownMemberType]

    return Silent


def forget(name: str, hub: Path) -> int:
    """Takes a model out of the cache, all of its snapshots and what only they used. Returns the bytes freed, as the
    library reckons them."""
    library = _hub()
    cache = library.scan_cache_dir(hub)
    commits = [
        revision.commit_hash
        for repository in cache.repos
        if (repository.repo_type, repository.repo_id) == ("model", name)
        for revision in repository.revisions
    ]
    freed = 0
    if commits:
        strategy = cache.delete_revisions(*commits)
        freed = strategy.expected_freed_size
        strategy.execute()
    repository = repository_of(name, hub)
    for left in (repository, hub / ".locks" / repository.name):  # what the library does not count as a snapshot
        shutil.rmtree(left, ignore_errors=True)
    return freed
