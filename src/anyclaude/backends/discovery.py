"""Which server answers at an address, by what it answers and not by its port; and which models it has.

`Ask` is one GET: None where nothing answers. LM Studio answers 200 to any path, so only bodies count.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import httpx2
import msgspec
from msgspec import Struct

from anyclaude.backends.http import Clients, reason
from anyclaude.backends.kinds import KINDS
from anyclaude.errors import NoBackend

PROBE_S = 2.0
LOAD_S = 300.0


class Answer(Struct, frozen=True):
    status: int
    server: str
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object, or nothing."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}


Ask = Callable[[str], Awaitable[Answer | None]]


class Model(Struct, frozen=True):
    """`context_window` and `max_output_tokens` in tokens, where the server tells. One that is not `is_own` is never
    chosen unasked: it runs at somebody else's, or does not chat."""

    id: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    is_loaded: bool = False
    is_own: bool = True
    takes_images: bool | None = None


class Found(Struct, frozen=True):
    """A server at an address. `problem` is set where it answers but cannot work yet."""

    kind: str
    base_url: str
    models: tuple[Model, ...] = ()
    problem: str | None = None

    @property
    def title(self) -> str:
        return KINDS[self.kind].title


def asker(clients: Clients, base_url: str, api_key: str | None, problems: list[str] | None = None) -> Ask:
    """`problems` collects why an answer did not come or was refused, in words for the person."""
    headers = {"authorization": f"Bearer {api_key}", "x-api-key": api_key} if api_key else {}
    root = base_url.removesuffix("/v1")

    async def ask(path: str) -> Answer | None:
        try:
            response = await clients.of(root).get(f"{root}{path}", headers=headers, timeout=PROBE_S)
        except (httpx2.TransportError, httpx2.InvalidURL, httpx2.DecodingError) as error:
            if problems is not None:
                problems.append(reason(error))
            return None
        if problems is not None and response.status_code >= 400:
            refused = " (the key is missing or wrong)" if response.status_code in (401, 403) else ""
            problems.append(f"HTTP {response.status_code} for {path}{refused}")
        return Answer(response.status_code, response.headers.get("server", ""), response.content)

    return ask


async def identify(ask: Ask, base_url: str) -> Found | None:
    """The server and its models, or None where nothing of use answers."""
    listing = await ask("/v1/models")
    if listing is None:
        return None
    kind = _by_listing(listing) or await _by_asking(ask, listing)
    if kind is None:
        return None
    if listing.status == 503:
        return Found(kind, base_url, problem=_problem(listing))
    return Found(kind, base_url, await list_models(ask, kind, listing))


def _by_listing(listing: Answer) -> str | None:
    if listing.server.startswith("llama.cpp"):
        return "llamacpp"
    owners = {str(entry.get("owned_by")) for entry in _entries(listing)}
    if "vllm" in owners:
        return "vllm"
    if "llamacpp" in owners:
        return "llamacpp"
    if any(entry.get("type") == "model" for entry in _entries(listing)):
        return "anthropic"
    return None


async def _by_asking(ask: Ask, listing: Answer) -> str | None:
    greeting = await ask("/lmstudio-greeting")
    if greeting is not None and greeting.fields.get("lmstudio") is True:
        return "lmstudio"
    root = await ask("/")
    if root is not None and root.body.strip() == b"Ollama is running":
        return "ollama"
    if listing.status != 200:
        return None
    health = await ask("/health")
    if listing.server.startswith("BaseHTTP/") and health is not None and "status" in health.fields:
        return "mlx-lm"
    return "openai" if "data" in listing.fields else None


async def list_models(ask: Ask, kind: str, listing: Answer) -> tuple[Model, ...]:
    match kind:
        case "llamacpp":
            return await _llamacpp_models(ask, listing)
        case "ollama":
            return await _ollama_models(ask)
        case "lmstudio":
            return await _lmstudio_models(ask) or _listed(listing)
        case "mlx-lm":
            return _mlx_models(listing)
        case _:
            return _listed(listing)


def _listed(listing: Answer) -> tuple[Model, ...]:
    """The plain list, with the limits that some servers add to it."""
    return tuple(
        Model(
            id=str(entry["id"]),
            context_window=_least(
                entry.get("max_model_len"),
                entry.get("context_length"),
                entry.get("max_input_tokens"),
                _table(entry, "top_provider").get("context_length"),
            ),
            max_output_tokens=_least(
                _table(entry, "top_provider").get("max_completion_tokens"), entry.get("max_tokens")
            ),
            is_loaded="max_model_len" in entry,
            takes_images=_lists_image(_table(entry, "architecture").get("input_modalities")),
        )
        for entry in _entries(listing)
    )


async def _llamacpp_models(ask: Ask, listing: Answer) -> tuple[Model, ...]:
    """The window of one slot: `n_ctx_train` is what the model was trained for, not what it may use here."""
    props = await ask("/props")
    slot = _table(props.fields, "default_generation_settings").get("n_ctx") if props else None
    return tuple(
        Model(
            id=str(entry["id"]),
            context_window=_least(slot) or _least(_table(entry, "meta").get("n_ctx")),
            is_loaded=_table(entry, "status").get("value", "loaded") == "loaded",
            takes_images=_flag(_table(props.fields, "modalities").get("vision")) if props else None,
        )
        for entry in _entries(listing)
    )


async def _ollama_models(ask: Ask) -> tuple[Model, ...]:
    """Only a loaded model tells the window in force; the default one can be as small as 4,096 tokens."""
    tags, running = await ask("/api/tags"), await ask("/api/ps")
    windows = {str(entry.get("name")): _least(entry.get("context_length")) for entry in _entries(running, "models")}
    named = {str(entry["name"]): entry for entry in _entries(tags, "models") if "name" in entry}
    return tuple(
        Model(name, windows.get(name), is_loaded=name in windows, is_own=_runs_here(name, entry))
        for name, entry in named.items()
    )


def _runs_here(name: str, entry: Mapping[str, Any]) -> bool:
    """Ollama lists models of its maker's cloud, which would take the prompt away, and models that only embed."""
    is_remote = bool(entry.get("remote_host") or entry.get("remote_model")) or name.endswith(("-cloud", ":cloud"))
    return not is_remote and "embed" not in name and "bert" not in str(_table(entry, "details").get("family"))


async def load_in_ollama(clients: Clients, base_url: str, model: Model) -> Model:
    """The model with the window in force, which Ollama tells only once it is loaded. A request without a prompt
    loads it (its API documentation, "Load a model"). The same model where that fails: the first turn will tell why."""
    root = base_url.removesuffix("/v1")
    body = {"model": model.id, "stream": False}
    try:
        await clients.of(root).post(f"{root}/api/generate", json=body, timeout=LOAD_S)
    except httpx2.TransportError:
        return model
    loaded = await _ollama_models(asker(clients, root, None))
    return next((found for found in loaded if found.id == model.id), model)


async def _lmstudio_models(ask: Ask) -> tuple[Model, ...]:
    listing = await ask("/api/v1/models")
    models: list[Model] = []
    for entry in _entries(listing, "models"):
        if entry.get("type") == "embedding":
            continue
        loaded = _objects(entry.get("loaded_instances"))
        window = _least(*(_table(instance, "config").get("context_length") for instance in loaded))
        takes_images = _flag(_table(entry, "capabilities").get("vision"))
        models.append(Model(str(entry.get("key")), window, is_loaded=bool(loaded), takes_images=takes_images))
    return tuple(models)


def _mlx_models(listing: Answer) -> tuple[Model, ...]:
    """Every model of the hub's cache, and last the folder that the server was started with. Nothing tells which of
    the cache is loaded; without a cache folder the body is empty."""
    ids = [str(entry["id"]) for entry in _entries(listing)]
    return tuple(Model(name, is_loaded=name.startswith("/") or len(ids) == 1) for name in ids)


def _entries(answer: Answer | None, key: str = "data") -> list[Mapping[str, Any]]:
    entries = _objects(answer.fields.get(key)) if answer is not None else []
    return [entry for entry in entries if "id" in entry] if key == "data" else entries


def _objects(found: object) -> list[Mapping[str, Any]]:
    if not isinstance(found, list):
        return []
    return [cast("Mapping[str, Any]", entry) for entry in cast("list[Any]", found) if isinstance(entry, dict)]


def _table(fields: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = fields.get(key)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _lists_image(modalities: object) -> bool | None:
    return "image" in cast("list[Any]", modalities) if isinstance(modalities, list) else None


def _least(*figures: object) -> int | None:
    return min((figure for figure in figures if isinstance(figure, int) and figure > 0), default=None)


def _problem(answer: Answer) -> str:
    return str(_table(answer.fields, "error").get("message") or answer.fields.get("error") or "not ready")


def _remedy(kind: str) -> str:
    if KINDS[kind].base_url is not None:
        return "Look at the network, and at HTTPS_PROXY if one is needed."
    return f"Start it, for example:  {KINDS[kind].hint}"


async def expect(ask: Ask, kind: str, base_url: str) -> Found:
    """A server of a kind that the person named. Raises NoBackend where it does not answer or refuses."""
    title = KINDS[kind].title
    listing = await ask("/v1/models")
    if listing is None:
        raise NoBackend(f"{title} does not answer at {base_url}.\n{_remedy(kind)}")
    if listing.status in (401, 403):
        raise NoBackend(f"{title} at {base_url} refused the key (HTTP {listing.status}). Set ANYCLAUDE_API_KEY.")
    if listing.status == 503:
        return Found(kind, base_url, problem=_problem(listing))
    return Found(kind, base_url, await list_models(ask, kind, listing))
