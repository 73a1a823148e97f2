"""Fixtures that several folders share. Everything runs in folders of its own and on 127.0.0.1 only."""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path

import pytest

from demo.mlx_server import mlx_server
from tests.support.backend import Script, ScriptedBackend
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.home import Home, make_home


@pytest.fixture
def gateway() -> Generator[RunningGateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
def scripted() -> Generator[Callable[[Script], ScriptedBackend]]:
    """Starts a scripted model server, as many as wanted."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(ScriptedBackend(script))


@pytest.fixture
def home(tmp_path: Path) -> Generator[Home]:
    """A person's machine: folders of their own, the real client, no gateway yet; what was started is stopped."""
    with make_home(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
def mlx(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """The real mlx_lm.server on a small random-weight model."""
    with mlx_server(tmp_path_factory.mktemp("mlx")) as url:
        yield url
