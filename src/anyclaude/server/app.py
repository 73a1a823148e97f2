"""The routes, and the guard around them."""

from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from anyclaude.errors import ApiError, InvalidRequest, Missing
from anyclaude.server.answers import send_error, send_json
from anyclaude.server.api import Api
from anyclaude.server.gateway import Gateway
from anyclaude.server.guard import Guard
from anyclaude.server.manage import Manage
from anyclaude.server.manage_engine import ManageEngine


def build_app(gateway: Gateway, *, management_token: str, hosts: frozenset[str], stop: Callable[[], None]) -> Guard:
    api, manage, engine = Api(gateway), Manage(gateway, stop), ManageEngine(gateway)
    routes = [
        Route("/", _Fixed({}), methods=["HEAD"]),
        Route("/api/hello", _Fixed({}), methods=["HEAD"]),
        Route("/health", _Fixed({"status": "ok"}), methods=["GET"]),
        Route("/v1/messages", _Endpoint(api.messages), methods=["POST"]),
        Route("/v1/messages/count_tokens", _Endpoint(api.count_tokens), methods=["POST"]),
        Route("/v1/models", _Endpoint(api.models), methods=["GET"]),
        Route("/v1/models/{model_id:path}", _Endpoint(api.model), methods=["GET"]),
        Route("/anyclaude/statistics", _Endpoint(manage.statistics), methods=["GET"]),
        Route("/anyclaude/turns", _Endpoint(manage.turns), methods=["GET"]),
        Route("/anyclaude/engine", _Endpoint(engine.show), methods=["GET"]),
        Route("/anyclaude/engine", _Endpoint(engine.command), methods=["POST"]),
        Route("/anyclaude/sessions", _Endpoint(manage.register), methods=["POST"]),
        Route("/anyclaude/forget", _Endpoint(manage.forget), methods=["POST"]),
        Route("/anyclaude/drain", _Endpoint(manage.drain), methods=["POST"]),
        Route("/anyclaude/stop", _Endpoint(manage.stop), methods=["POST"]),
    ]
    handlers = {ApiError: _api_error, HTTPException: _http_error, ClientDisconnect: _gone, Exception: _defect}
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(app, sessions=gateway.sessions, management_token=management_token, hosts=hosts)


class _Endpoint:
    """A bound method as an ASGI application: Starlette would take a plain one for a request handler."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._application(scope, receive, send)


class _Fixed:
    def __init__(self, value: object) -> None:
        self._value = value

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(scope, send, self._value)


class _ErrorAnswer(Response):
    def __init__(self, error: ApiError) -> None:
        super().__init__(status_code=error.status)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_error(scope, send, self._error)


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _ErrorAnswer(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """No such route, or not with this method."""
    assert isinstance(error, HTTPException)
    problem = f"{request.method} {request.url.path}: {error.detail}"
    return _ErrorAnswer(Missing(problem) if error.status_code == 404 else InvalidRequest(problem))


async def _gone(_request: Request, _error: Exception) -> Response:
    """The client left while it sent its request: nobody reads this."""
    return Response(status_code=400)


async def _defect(_request: Request, _error: Exception) -> Response:
    return _ErrorAnswer(ApiError("anyclaude failed on this request; see `anyclaude logs`"))
