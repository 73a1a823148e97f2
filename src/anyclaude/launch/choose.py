"""Which server and model this launch uses: what the person named, else what runs on the usual ports, else the embedded
engine with a model of this machine."""

import asyncio
import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from anyclaude.backends.discovery import Found, Model, asker, expect, identify, load_in_ollama
from anyclaude.backends.http import Clients
from anyclaude.backends.kinds import KINDS
from anyclaude.backends.seam import Target
from anyclaude.config.settings import Settings
from anyclaude.errors import NoBackend, SettingError
from anyclaude.launch.choice import ASSUMED_WINDOW, SMALL_WINDOW, Choice, output_limit, small_window_note
from anyclaude.launch.engine_choice import Used, engine_choice, names_engine
from anyclaude.launch.local_model import window_of

_MANY = 20
_STRICT = frozenset({"ollama", "lmstudio", "vllm", "openrouter"})
_LOADS_ON_DEMAND = frozenset({"ollama", "lmstudio"})


def kind_of_mode(settings: Settings) -> str | None:
    """The kind of server that the mode names. Raises SettingError for a name that is neither kind nor backend."""
    mode = settings.mode
    if mode is None:
        return None
    if mode in settings.backend_names:
        if settings.kind is not None and settings.kind not in KINDS:
            raise SettingError(f"[backends.{mode}]: unknown kind {settings.kind!r}; known are {', '.join(KINDS)}")
        return settings.kind
    if mode in KINDS:
        return mode
    names = [*KINDS, *settings.backend_names]
    close = difflib.get_close_matches(mode, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(names)}"
    raise SettingError(f"unknown mode {mode!r} (from {settings.sources.get('mode', 'option')}); {hint}")


def goes_straight(settings: Settings) -> bool:
    """Mode `claude` without a key: Claude Code with nothing of ours."""
    return kind_of_mode(settings) == "claude" and settings.api_key is None


def _never_used() -> Mapping[str, float]:
    return {}


async def choose(settings: Settings, hub: Path, say: Callable[[str], None], used: Used = _never_used) -> Choice:
    """`say` tells the person of work that takes a while; `used` when turns of ours last used each model folder. Raises
    NoBackend, ModelRefused or SettingError with what to do."""
    if names_engine(settings, kind_of_mode(settings)):
        return engine_choice(settings, hub, used, is_named=True)
    clients = Clients()
    try:
        servers = await find(settings, clients)
        if not servers:
            return _engine_instead(settings, hub, used)
        found, *others = servers
        model = _model(settings, found)
        if found.kind == "ollama" and not model.is_loaded and settings.context_window is None:
            say(f"loading {model.id} into Ollama, which tells the context window of loaded models only")
            model = await load_in_ollama(clients, found.base_url, model)
    finally:
        await clients.close()
    return _choice(settings, found, model, others, hub)


def _engine_instead(settings: Settings, hub: Path, used: Used) -> Choice:
    try:
        return engine_choice(settings, hub, used, is_named=False)
    except NoBackend as error:
        raise NoBackend(f"{_nothing_found()}\n\nThe embedded engine needs no server: {error.message}") from None


async def search(clients: Clients) -> list[Found]:
    """Everything that answers on the usual ports of this machine. No key is sent: nobody named these servers."""
    ports = dict.fromkeys(port for kind in KINDS.values() for port in kind.ports)
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    found = await asyncio.gather(*(identify(asker(clients, url, None), url) for url in urls))
    return [server for server in found if server is not None]


async def find(settings: Settings, clients: Clients) -> list[Found]:
    """What the person named, or whatever answers on the usual ports, the best first. Raises NoBackend or SettingError
    where what was named does not answer."""
    kind = kind_of_mode(settings)
    kind = None if kind == "mlx" else kind  # an address given for this launch sets the engine aside
    key = key_for(settings)
    if kind is not None:
        url = settings.base_url or KINDS[kind].default_url
        if url is None:
            raise SettingError(f"mode {kind} needs an address: --base-url URL (or ANYCLAUDE_BASE_URL)")
        if KINDS[kind].needs_key and key is None:
            raise SettingError(f"mode {kind} needs a key. {KINDS[kind].hint}")
        return [await expect(asker(clients, url, key), kind, url)]
    if settings.base_url is not None:
        problems: list[str] = []
        found = await identify(asker(clients, settings.base_url, key, problems), settings.base_url)
        if found is None:
            why = f": {problems[0]}" if problems else ""
            raise NoBackend(f"no model server answers at {settings.base_url} ({settings.sources['base_url']}){why}")
        return [found]
    return best_first(await search(clients))


def best_first(servers: list[Found]) -> list[Found]:
    """First those that can answer at once, then those that have a model to load; equals stay in their order."""
    return sorted(servers, key=_rank)


def _rank(server: Found) -> int:
    """mlx_lm.server always has its model loaded."""
    if server.problem is not None:
        return 3
    if server.kind == "mlx-lm" or any(model.is_loaded for model in server.models):
        return 0
    return 1 if any(model.is_own for model in server.models) else 2


def key_for(settings: Settings) -> str | None:
    """The key goes to a server that the person named, and a named backend's key to that backend's own address only.
    Raises SettingError."""
    if settings.api_key is None or (settings.mode is None and settings.base_url is None):
        return None
    key_from, url_from = settings.sources.get("api_key", ""), settings.sources.get("base_url", "")
    if "[backends." in key_from and url_from != key_from and url_from != "default":
        raise SettingError(
            f"the api_key of {key_from} is not sent to another address ({url_from}); set ANYCLAUDE_API_KEY"
        )
    return settings.api_key.reveal()


def _nothing_found() -> str:
    local = [kind for kind in KINDS.values() if kind.ports]
    width = max(len(kind.title) for kind in local)
    lines = [f"  {kind.title:<{width}}  {kind.hint}" for kind in local]
    ports = ", ".join(str(port) for port in dict.fromkeys(port for kind in local for port in kind.ports))
    return "\n".join(
        [
            f"no model server runs on this machine (looked at ports {ports}). Start one, for example:",
            *lines,
            "or name one:  anyclaude --base-url http://HOST:PORT",
        ]
    )


def _choice(settings: Settings, found: Found, model: Model, others: list[Found], hub: Path) -> Choice:
    window = settings.context_window or model.context_window or window_of(model.id, hub)
    name = client_name(model.id)
    limit = settings.max_output_tokens
    if name is not None:
        limit = limit or output_limit(window or ASSUMED_WINDOW, model.max_output_tokens)
    target = Target(
        kind=found.kind,
        base_url=found.base_url,
        model=model.id or None,
        is_model_chosen=settings.model is not None,
        models=_picker_models(found),
        api_key=key_for(settings),
        context_window=window,
        max_output_tokens=limit,
        takes_images=model.takes_images,
        silence_s=settings.backend_silence_s,
    )
    return Choice(target, name, window or ASSUMED_WINDOW, tuple(_notes(found, target, others, name)))


def _notes(found: Found, target: Target, others: list[Found], name: str | None) -> Iterator[str]:
    if name is None:
        yield f"{found.title} at {found.base_url}, through the gateway with your key"
        return
    yield f"{name} on {found.title} at {found.base_url}"
    for other in others:
        yield f"also running: {other.title} at {other.base_url} (--mode {other.kind})"
    if found.problem is not None:
        yield f"{found.title} says: {found.problem}"
    if found.kind == "mlx-lm" and target.is_model_chosen:
        yield f"mlx_lm.server drops the model that it has loaded for {name}; without --model it keeps its own"
    if target.context_window is None:
        yield f"{found.title} does not tell its context window; assuming {ASSUMED_WINDOW:,} (setting context_window)"
    elif target.context_window < SMALL_WINDOW:
        yield small_window_note(target.context_window)


def _model(settings: Settings, found: Found) -> Model:
    """The model that was named, else the loaded one, else the first. Raises NoBackend."""
    by_id = {model.id: model for model in found.models}
    if settings.model is not None:
        if settings.model in by_id or not by_id or found.kind not in _STRICT:
            return by_id.get(settings.model, Model(settings.model))
        close = difflib.get_close_matches(settings.model, list(by_id), n=1)
        hint = f"Did you mean {close[0]}?" if close else f"It has: {_listed(list(by_id))}"
        raise NoBackend(f"{found.title} at {found.base_url} has no model {settings.model!r}. {hint}")
    if found.kind == "claude":
        return Model("")
    loaded = [model for model in found.models if model.is_loaded]
    if found.kind == "mlx-lm":
        return loaded[-1] if loaded else Model("mlx-lm")  # it answers with what it has loaded, whatever its name
    if loaded or len(found.models) == 1:
        return (loaded or found.models)[0]
    if found.problem is not None:
        return Model("default")
    if not found.models:
        raise NoBackend(f"{found.title} at {found.base_url} has no model. Name one with --model, or load one there.")
    own = [model for model in found.models if model.is_own]
    if found.kind in _LOADS_ON_DEMAND and own:
        return own[0]
    raise NoBackend(f"choose one of the models with --model NAME: {_listed(list(by_id))}")


def client_name(model: str) -> str | None:
    """The name that the client shows: of a folder its last part."""
    return (model.rstrip("/").rpartition("/")[2] if model.startswith("/") else model) or None


def _picker_models(found: Found) -> tuple[str, ...]:
    """What `/model` offers. mlx_lm.server would drop its model for any other, so it offers none but its own."""
    return () if found.kind == "mlx-lm" else tuple(model.id for model in found.models[:_MANY])


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MANY} more (anyclaude models)" if len(names) > _MANY else ""
    return ", ".join(names[:_MANY]) + more
