"""Whom the dashboard's server lets in: real requests to the real server, over sockets."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import optuna
import pytest
from optuna.artifacts import upload_artifact
from small_study import create_study, make_spec

from fmnist_optuna.artifacts.folder import DurableStore
from fmnist_optuna.bridge.storage import create_storage, open_optuna
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.pages import access as access_module
from fmnist_optuna.pages.access import Access, make_access
from fmnist_optuna.pages.address import LOOPBACK
from fmnist_optuna.pages.dashboard import MAX_BODY_BYTES, Dashboard, make_application

TOKEN = "an-example-token-0123456789"
BEARER = f"Authorization: Bearer {TOKEN}"
ARTIFACTS = ("page.html", "picture.svg", "picture.png", "table.csv", "model.bin", "pdf.pdf")


@dataclass(frozen=True)
class Reply:
    """What a server answered; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: str


def read_all(connection: socket.socket) -> bytes:
    """Until the other side closes, also where it does so without having read all of the request."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            parts.append(part)
    return b"".join(parts)


@dataclass(frozen=True)
class Running:
    """A server in a thread of this process."""

    port: int

    def ask(self, method: str, target: str, *headers: str, host: str | None = "localhost", body: str = "") -> Reply:
        """Send a request as it stands, whatever it is, and read the whole answer."""
        lines = [f"{method} {target} HTTP/1.1", "Connection: close", *headers]
        lines += [f"Host: {host}:{self.port}"] if host is not None else []
        lines += [f"Content-Length: {len(body)}"] if body else []
        with socket.create_connection((LOOPBACK, self.port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", body]).encode("latin-1"))
            answer = read_all(connection).decode("latin-1")
        head, _, rest = answer.partition("\r\n\r\n")
        status, *fields = head.split("\r\n")
        pairs = [field.partition(": ") for field in fields]
        names = [name.lower() for name, _, _ in pairs]
        assert len(names) == len(set(names)), f"a header came twice: {names}"
        return Reply(int(status.split()[1]), {name.lower(): value for name, _, value in pairs}, rest)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    """A storage with one study and an artifact of each kind."""
    storage = create_storage(StorageOptions(f"sqlite:///{tmp_path_factory.mktemp('shown') / 'studies.db'}"))
    record = create_study(storage, make_spec())
    study = optuna.load_study(study_name=record.name, storage=open_optuna(storage))
    for name in ARTIFACTS:
        file = storage.artifacts.parent / name
        file.write_text("<script>alert(1)</script>")
        upload_artifact(artifact_store=DurableStore(storage.artifacts), file_path=str(file), study_or_trial=study)
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def start(storage: Storage) -> Iterator[Callable[[Access], Running]]:
    """Starts servers, which end with the module."""
    servers: list[Dashboard] = []

    def start(access: Access) -> Running:
        server = Dashboard(make_application(storage, access), LOOPBACK, 0, is_writable=access.is_writable)
        threading.Thread(target=serve, args=[server], daemon=True).start()
        servers.append(server)
        return Running(server.port)

    yield start
    for server in servers:
        server.close()


def serve(server: Dashboard) -> None:
    """Until its sockets are closed under it."""
    with contextlib.suppress(OSError):
        server.serve()


@pytest.fixture(scope="module")
def reader(start: Callable[[Access], Running]) -> Running:
    """Read-only on the loopback, also known as studies.example and by an address."""
    return start(make_access(LOOPBACK, ["Studies.example", "fd00::0:1"], None, is_writable=False))


@pytest.fixture(scope="module")
def writer(start: Callable[[Access], Running]) -> Running:
    """Writable, with a token."""
    return start(make_access(LOOPBACK, [], TOKEN, is_writable=True))


OTHER_REQUESTS: list[tuple[str, str, str | None, list[str], int]] = [
    # method, target, name in the Host header, further headers, status
    ("GET", "/dashboard", "localhost", [], 200),
    ("GET", "/dashboard/studies/1/trials?numbers=0", "127.0.0.1", [], 200),
    ("GET", "/api/studies", "[::1]", [], 200),
    ("GET", "/api/studies", "[0:0:0:0:0:0:0:1]", [], 200),
    ("GET", "/api/studies", "LOCALHOST", [], 200),
    ("GET", "/api/studies", "studies.EXAMPLE", [], 200),
    ("GET", "/api/studies", "[fd00::1]", [], 200),
    ("GET", "/healthz", "localhost", [], 200),
    ("HEAD", "/healthz", "localhost", [], 200),
    ("GET", "/metrics", "localhost", [], 200),
    ("HEAD", "/metrics", "localhost", [], 200),
    ("GET", "/metrics", "evil.example", [], 421),
    ("POST", "/metrics", "localhost", [], 405),
    ("HEAD", "/static/bundle.js", "localhost", [], 200),
    ("GET", "/api/studies", None, ["Host: localhost"], 200),
    ("GET", "/", "localhost", ["X-Forwarded-Host: evil.example"], 302),
    ("GET", "/api/studies", "evil.example", [], 421),
    ("GET", "/healthz", "evil.example", [], 421),
    ("GET", "/api/studies", "evil.example", ["X-Forwarded-Host: localhost"], 421),
    ("GET", "/api/studies", "localhost.evil.example", [], 421),
    ("GET", "/api/studies", "localhost.", [], 421),
    ("GET", "/api/studies", "user@localhost", [], 421),
    ("GET", "/api/studies", "localhost:80@evil.example", [], 421),
    ("GET", "/api/studies", "127.0.0.2", [], 421),
    ("GET", "/api/studies", "2130706433", [], 421),
    ("GET", "/api/studies", "[::ffff:127.0.0.1]", [], 421),
    ("GET", "/api/studies", None, [], 421),
    ("GET", "/api/studies", None, ["Host:"], 421),
    ("GET", "/api/studies", None, ["Host: localhost", "Host: localhost"], 421),
    ("GET", "/api/studies", None, ["Host: localhost:"], 421),
    ("GET", "/api/studies", None, ["Host: localhost:80x"], 421),
    ("GET", "/api/studies", None, ["Host: localhost/x"], 421),
    ("GET", "http://localhost/api/studies", "localhost", [], 400),
    ("GET", "http://evil.example/api/studies", "localhost", [], 400),
    ("GET", "//evil.example/api/studies", "localhost", [], 400),
    ("GET", "/static/../api/studies", "localhost", [], 400),
    ("GET", "/api/artifacts/..", "localhost", [], 400),
    ("GET", "/api/artifacts/..?x=1", "localhost", [], 400),
    ("GET", "/static/%2e%2e/index.html", "localhost", [], 400),
    ("GET", "/api%2Fstudies", "localhost", [], 400),
    ("GET", "/static//bundle.js", "localhost", [], 400),
    ("GET", "/static/..\\index.html", "localhost", [], 400),
    ("GET", "*", "localhost", [], 400),
    ("GET", "/api/studies/9999", "localhost", [], 404),
    ("GET", "/nowhere", "localhost", [], 404),
    ("GET", "/artifacts/1/00000000-0000-0000-0000-000000000000", "localhost", [], 404),
    ("DELETE", "/api/studies/1", "localhost", [], 405),
    ("POST", "/api/studies", "localhost", ["X-HTTP-Method-Override: GET"], 405),
    ("POST", "/healthz", "localhost", [], 405),
    ("OPTIONS", "/api/studies", "localhost", ["Origin: http://evil.example"], 405),
    ("TRACE", "/api/studies", "localhost", [], 405),
    ("CONNECT", "/api/studies", "localhost", [], 405),
    ("PATCH", "/api/studies/1", "localhost", [], 405),
    ("GET", "/api/studies", "localhost", ["Content-Length: 99999999999"], 413),
    ("GET", "/api/studies", "localhost", ["Content-Length: -1"], 400),
    ("GET", "/api/studies", "localhost", ["X: " + 32_700 * "x"], 431),
    ("GET", "/api/studies", "localhost", ["Transfer-Encoding: gzip"], 501),
    ("POST", "/api/studies", "localhost", ["Content-Length: 2000"], 413),
    ("GET", "/api/studies", "localhost", ["Upgrade: websocket", "Sec-WebSocket-Version: 13"], 200),
    ("GET", "/dashboard?token=x", "localhost", [], 200),
    ("get", "/api/studies", "localhost", [], 400),
    ("GET", "/api/studies", "0.0.0.0", [], 421),
    ("GET", "/api/studies", "[::]", [], 421),
    ("GET", "/api/studies", "[::1%25lo]", [], 421),
    ("GET", "/api/studies", "localhost,evil.example", [], 421),
]
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def check_headers(reply: Reply) -> None:
    """Those of every answer; nothing that lets other sites in."""
    assert {name: reply.headers.get(name) for name in ALWAYS} == ALWAYS
    policy = reply.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert reply.headers["cache-control"] in ("no-store", "no-cache")
    assert not [name for name in reply.headers if name.startswith("access-control-") or name == "server"]


@pytest.mark.parametrize(("method", "target", "host", "headers", "status"), OTHER_REQUESTS)
def test_a_read_only_server_answers(
    reader: Running, method: str, target: str, host: str | None, headers: list[str], status: int
) -> None:
    """Only to its names and paths, only what reads, and always with the headers that keep others out."""
    reply = reader.ask(method, target, *headers, host=host)
    assert reply.status == status
    check_headers(reply)
    assert "evil.example" not in reply.headers.get("location", "")
    assert "set-cookie" not in reply.headers
    if method == "HEAD":
        assert reply.body == ""
    elif target == "/healthz" and status == 200:
        assert reply.body == "ok"


@pytest.mark.parametrize("name", ARTIFACTS)
def test_an_artifact_never_runs(reader: Running, name: str) -> None:
    """Pictures of known types are shown, in a sandbox; everything else is a file to keep, of a fixed type."""
    stored = json.loads(reader.ask("GET", "/api/studies/1").body)["artifacts"]
    artifact_id = next(meta["artifact_id"] for meta in stored if meta["filename"] == name)
    reply = reader.ask("GET", f"/artifacts/1/{artifact_id}")
    check_headers(reply)
    assert (reply.status, reply.body) == (200, "<script>alert(1)</script>")
    assert "sandbox" in reply.headers["content-security-policy"]
    assert "script-src" not in reply.headers["content-security-policy"]
    shown = {"picture.svg": "image/svg+xml", "picture.png": "image/png"}
    kept = {"table.csv": "text/csv"}
    assert reply.headers["content-disposition"] == ("inline" if name in shown else "attachment")
    assert reply.headers["content-type"] == (shown | kept).get(name, "application/octet-stream")


OURS, EVIL = "Origin: http://localhost:PORT", "Origin: http://evil.example"
COOKIE = "Cookie: fmnist_optuna_PORT=SESSION"
CHANGE = '{"study_name": "made", "directions": ["maximize"]}'
TOKEN_REQUESTS: list[tuple[str, str, list[str], int]] = [
    ("GET", "/api/studies", [], 401),
    ("GET", "/dashboard", [], 401),
    ("GET", "/static/bundle.js", [], 401),
    ("GET", "/healthz", [], 200),
    ("GET", "/metrics", [], 401),
    ("GET", "/metrics", [BEARER], 200),
    ("GET", "/api/studies", [BEARER], 200),
    ("GET", "/api/studies", [BEARER.replace("Bearer", "bearer")], 200),
    ("GET", "/api/studies", [BEARER.replace("Bearer", "Basic")], 401),
    ("GET", "/api/studies", [f"X-Forwarded-Authorization: Bearer {TOKEN}"], 401),
    ("GET", "/api/studies", [COOKIE], 200),
    ("GET", "/api/studies", [COOKIE.replace("Cookie: ", 'Cookie: a={"b": 1}; c:d/e=f g;; h; ')], 200),
    ("GET", "/api/studies", [f"{COOKIE}; fmnist_optuna_PORT=other"], 200),
    ("GET", "/api/studies", ["Cookie: fmnist_optuna_PORT="], 401),
    ("GET", "/api/studies", [COOKIE.replace("Cookie:", "X-Cookie:")], 401),
    ("GET", "/api/studies", [COOKIE.replace("SESSION", TOKEN)], 401),
    ("GET", "/api/studies", [COOKIE.replace("PORT", "80")], 401),
    ("GET", "/api/studies", ["Cookie: ;=;\xff"], 401),
    ("POST", "/api/studies", [], 401),
    ("POST", f"/api/studies?token={TOKEN}", [OURS], 401),
    ("POST", "/api/studies", [COOKIE], 403),
    ("POST", "/api/studies", [COOKIE, EVIL], 403),
    ("POST", "/api/studies", [COOKIE, "Origin: null"], 403),
    ("POST", "/api/studies", [COOKIE, "Origin: http://localhost"], 403),
    ("POST", "/api/studies", [COOKIE, OURS, "Sec-Fetch-Site: cross-site"], 403),
    ("POST", "/api/studies", [COOKIE, OURS, "Sec-Fetch-Site: same-site"], 403),
    ("POST", "/api/studies", [BEARER, EVIL], 403),
    ("OPTIONS", "/api/studies", [BEARER], 405),
    ("TRACE", "/api/studies", [COOKIE], 405),
    ("POST", "/api/studies", [COOKIE, OURS, "Sec-Fetch-Site: same-origin"], 201),
    ("POST", "/api/studies", [COOKIE, OURS.replace("http:", "https:")], 400),  # there by now
    ("POST", "/api/studies", [BEARER], 400),
]


def enter(writer: Running, *headers: str) -> Reply:
    """Follow the printed link."""
    return writer.ask("GET", f"/dashboard/studies/1?a=b%0A&token={TOKEN}", *headers)


def session_of(reply: Reply) -> str:
    """The value of the cookie that an answer sets."""
    return reply.headers["set-cookie"].partition("=")[2].partition(";")[0]


def test_a_link_is_exchanged_for_a_cookie(writer: Running) -> None:
    """The token leaves the address; from another site it goes on by a page of ours, as a strict cookie asks."""
    direct, crossing = enter(writer), enter(writer, "Sec-Fetch-Site: cross-site")
    for reply in (direct, crossing):
        check_headers(reply)
        assert reply.headers["cache-control"] == "no-store"
        name, _, rest = reply.headers["set-cookie"].partition("=")
        assert name == f"fmnist_optuna_{writer.port}"
        assert rest.split("; ")[1:] == ["Path=/", "HttpOnly", "SameSite=Strict"]
        assert TOKEN not in str(reply)
    assert (direct.status, direct.headers["location"]) == (303, "/dashboard/studies/1?a=b%0A")
    assert (crossing.status, crossing.headers["refresh"]) == (200, "0; url=/dashboard/studies/1?a=b%0A")


def test_a_server_with_a_token_answers(writer: Running) -> None:
    """To those who know it, and a change only to its own page or to a script with the token."""
    session = session_of(enter(writer))
    for method, target, headers, status in TOKEN_REQUESTS:
        sent = [header.replace("PORT", str(writer.port)).replace("SESSION", session) for header in headers]
        reply = writer.ask(method, target, "Content-Type: application/json", *sent, body=CHANGE * (method == "POST"))
        assert reply.status == status, (method, target, headers, reply)
        check_headers(reply)
        assert TOKEN not in str(reply)


def test_wrong_tokens_are_slowed(
    start: Callable[[Access], Running], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After five none is looked at, also in another place; who is in stays in; later the right one opens again."""
    server = start(Access(frozenset(["localhost"]), TOKEN, is_writable=True))
    session = session_of(server.ask("GET", f"/dashboard?token={TOKEN}"))
    wrong = [f"/api/studies?token={token}" for token in ("", "x", TOKEN[:-1], f"{TOKEN}&token={TOKEN}")]
    assert [server.ask("GET", target).status for target in wrong] == [401] * 4
    assert server.ask("POST", "/api/studies", "Authorization: Bearer \xff", body="{}").status == 401
    for reply in (server.ask("GET", "/api/studies", BEARER), server.ask("GET", f"/dashboard?token={TOKEN}")):
        assert reply.status == 429
        assert 1 <= int(reply.headers["retry-after"]) <= access_module.WRONG_TOKENS_SECONDS + 1
    assert server.ask("GET", "/api/studies", f"Cookie: fmnist_optuna_{server.port}={session}").status == 200
    assert server.ask("GET", "/healthz").status == 200
    monkeypatch.setattr(access_module, "WRONG_TOKENS_SECONDS", 0.0)
    assert server.ask("GET", "/api/studies", BEARER).status == 200
    assert [record.getMessage() for record in caplog.records if "wrong_token" in record.getMessage()] == [
        f"wrong_token client={LOOPBACK}"
    ] * 5
    assert TOKEN[:-1] not in caplog.text


LARGE = f"Content-Length: {MAX_BODY_BYTES - 1}"
BODY_REQUESTS: list[tuple[str, str, list[str], int]] = [
    ("POST", "localhost", [LARGE], 401),
    ("POST", "localhost", [LARGE, "Expect: 100-continue"], 401),
    ("POST", "localhost", ["Transfer-Encoding: chunked"], 401),
    ("PUT", "localhost", [LARGE, COOKIE.replace("SESSION", TOKEN)], 401),
    ("POST", "localhost", [LARGE, COOKIE, EVIL], 403),
    ("POST", "localhost", [LARGE, BEARER, EVIL], 403),
    ("POST", "evil.example", [LARGE, BEARER], 421),
    ("PATCH", "localhost", [LARGE, BEARER], 405),
    ("GET", "localhost", [LARGE, BEARER], 400),
]


def test_a_body_is_refused_unread(writer: Running) -> None:
    """Who may not send one is answered at its head, while the server has seen nothing of it."""
    session = session_of(enter(writer))
    for method, host, headers, status in BODY_REQUESTS:
        sent = [header.replace("PORT", str(writer.port)).replace("SESSION", session) for header in headers]
        reply = writer.ask(method, "/api/studies", *sent, host=host)
        assert reply.status == status, (method, host, headers, reply)
        check_headers(reply)


def test_a_body_of_a_known_visitor_arrives(writer: Running) -> None:
    """An artifact of some megabytes; a client that asks first is told to go on."""
    artifact = json.dumps({"file": f"data:text/csv;base64,{'QUJD' * 2**20}", "filename": "large.csv"})
    for headers, status in (([], 201), (["Expect: 100-continue"], 100)):
        kind = "Content-Type: application/json"
        assert writer.ask("POST", "/api/artifacts/1", BEARER, kind, *headers, body=artifact).status == status


def test_a_body_has_a_limit(writer: Running) -> None:
    """One that is announced beyond it is not read."""
    reply = writer.ask("POST", "/api/studies", BEARER, f"Content-Length: {MAX_BODY_BYTES}")
    assert reply.status == 413
    check_headers(reply)
