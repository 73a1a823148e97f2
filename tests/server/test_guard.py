"""Who gets in. The table is made from the application's own routes, so that a new route is tested before it is open."""

from collections.abc import Callable, Iterator

import pytest
from starlette.routing import Route

from anyclaude.server.app import build_app
from anyclaude.server.gateway import Gateway
from anyclaude.server.guard import MAX_BODY, OPEN
from anyclaude.server.sessions import Sessions
from anyclaude.telemetry.ledger import Ledger
from tests.support import chat
from tests.support.backend import Script, ScriptedBackend
from tests.support.gateway import MANAGEMENT, RunningGateway, running_gateway, target

Start = Callable[[Script], ScriptedBackend]


def _routes() -> Iterator[tuple[str, str]]:
    """Every method and path that the application answers."""
    ledger = Ledger(None)
    guard = build_app(Gateway(Sessions(None), ledger), management_token="x", hosts=frozenset(), stop=lambda: None)
    ledger.close()
    for route in guard.app.routes:
        assert isinstance(route, Route)
        for method in sorted(route.methods or ()):
            yield method, route.path.replace("{model_id:path}", "some/model")


ROUTES = list(_routes())
CLOSED = [route for route in ROUTES if route not in OPEN and route[0] != "HEAD"]


@pytest.fixture(scope="module")
def steady() -> Iterator[RunningGateway]:
    """One gateway for all requests that it refuses."""
    with running_gateway() as running:
        yield running


def _ask(gateway: RunningGateway, route: tuple[str, str], token: str = "", **headers: str) -> int:
    method, path = route
    return gateway.ask(method, path, {} if method == "POST" else None, token=token, **headers).status


def test_the_routes_open_to_all_are_the_three_that_tell_nothing() -> None:
    assert {("HEAD", "/"), ("HEAD", "/api/hello"), ("GET", "/health")} == OPEN
    assert len(CLOSED) >= 9


@pytest.mark.parametrize("route", sorted(OPEN))
def test_an_open_route_answers_without_a_token(steady: RunningGateway, route: tuple[str, str]) -> None:
    assert _ask(steady, route) == 200


@pytest.mark.parametrize("route", CLOSED, ids=" ".join)
def test_a_route_without_its_token_is_refused(steady: RunningGateway, route: tuple[str, str]) -> None:
    session = steady.session(target("http://127.0.0.1:9")).token
    wrong = [MANAGEMENT if route[1].startswith("/v1/") else session, "", "nonsense", session[:-1], session + "x", "ü"]
    for token in wrong:
        answer = steady.ask(*route, {} if route[0] == "POST" else None, token=token)
        assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")
        assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("route", CLOSED, ids=" ".join)
def test_a_route_with_its_token_is_open(gateway: RunningGateway, scripted: Start, route: tuple[str, str]) -> None:
    backend = scripted(lambda exchange: exchange.answer(chat.text("ok")))
    session = gateway.session(target(backend.url)).token
    token = session if route[1].startswith("/v1/") else MANAGEMENT
    assert _ask(gateway, route, token) not in (401, 403)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.:{port}", "localhost.:{port}", "LOCALHOST:{port}",
     "[::1]", "0.0.0.0:{port}", "127.1:{port}", "2130706433:{port}", "localhost:{port}@evil.example", "localhost x"],
)  # fmt: skip
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_a_host_that_is_not_ours_to_the_letter_is_refused(
    steady: RunningGateway, route: tuple[str, str], host: str
) -> None:
    session = steady.session(target("http://127.0.0.1:9")).token
    token = session if route[1].startswith("/v1/") else MANAGEMENT
    assert _ask(steady, route, token, host=host.format(port=steady.port)) in (400, 403)


def test_a_request_without_a_host_is_refused(gateway: RunningGateway) -> None:
    connection = gateway.connect()
    connection.putrequest("GET", "/health", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status in (400, 403)
    connection.close()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "[::1]"])
def test_each_name_of_this_machine_is_ours(steady: RunningGateway, name: str) -> None:
    assert steady.ask("GET", "/health", host=f"{name}:{steady.port}").status == 200


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "https://127.0.0.1:{port}", "http://127.0.0.1", ""])
@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
def test_a_web_page_of_another_origin_is_refused(steady: RunningGateway, route: tuple[str, str], origin: str) -> None:
    session = steady.session(target("http://127.0.0.1:9")).token
    token = session if route[1].startswith("/v1/") else MANAGEMENT
    answer = steady.ask(*route, {} if route[0] == "POST" else None, token=token, origin=origin.format(port=steady.port))
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_preflight_gets_no_permission(gateway: RunningGateway) -> None:
    answer = gateway.ask("OPTIONS", "/v1/messages", origin="http://evil.example", access_control_request_method="POST")
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "path", ["/v1", "/v2/messages", "/anyclaude", "/docs", "//v1/messages", "/v1/../anyclaude/turns"]
)
def test_paths_that_do_not_exist_are_refused_or_missing_in_the_clients_shape(steady: RunningGateway, path: str) -> None:
    session = steady.session(target("http://127.0.0.1:9")).token
    answer = steady.ask("GET", path, token=session)
    assert answer.status in (401, 404)
    assert answer.json["type"] == "error"


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "multipart/form-data"])
def test_what_a_web_form_can_send_changes_nothing(steady: RunningGateway, kind: str) -> None:
    answer = steady.ask("POST", "/anyclaude/stop", {}, token=MANAGEMENT, content_type=kind)
    assert answer.status == 400
    assert not steady.server.should_exit


def test_a_body_over_the_limit_is_refused_before_it_is_read(gateway: RunningGateway) -> None:
    token = gateway.session(target("http://127.0.0.1:9")).token
    connection = gateway.connect()
    connection.putrequest("POST", "/v1/messages")
    for name, value in {"content-type": "application/json", "authorization": f"Bearer {token}"}.items():
        connection.putheader(name, value)
    connection.putheader("content-length", str(MAX_BODY + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413  # nothing of the body was sent
    connection.close()


def test_a_body_without_a_length_is_counted_as_it_comes(gateway: RunningGateway) -> None:
    token = gateway.session(target("http://127.0.0.1:9")).token
    pieces = (b" " * (1 << 20) for _ in range((MAX_BODY >> 20) + 1))
    connection = gateway.connect()
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    connection.request("POST", "/v1/messages", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_token_is_never_logged(gateway: RunningGateway, scripted: Start, caplog: pytest.LogCaptureFixture) -> None:
    backend = scripted(lambda exchange: exchange.json(401, {"error": {"message": "no"}}))
    session = gateway.session(target(backend.url, api_key="marker-secret-key"))
    with caplog.at_level("DEBUG"):
        body = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "marker-secret-words"}]}
        gateway.ask("POST", "/v1/messages", body, token=session.token)
    assert "for scripted" in caplog.text
    assert not any(secret in caplog.text for secret in ("marker-secret", session.token, MANAGEMENT))
