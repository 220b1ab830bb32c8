"""What stands before the dashboard's pages: every request is checked here, every answer gets its headers here.

A page of any web site, open in a browser on this machine, can send requests to 127.0.0.1, and can make its own name
point there. So the name in the Host header is checked, nobody else may frame or read an answer, and what changes
something must come from the dashboard's own page, or from a script that knows the token.
"""

import json
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from types import TracebackType
from urllib.parse import parse_qsl, urlencode
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from fmnist_optuna.log import log_event
from fmnist_optuna.pages.access import Access, TokenCheck, split_authority

READING = ("GET", "HEAD")
CHANGING = ("POST", "PUT", "DELETE")  # those that optuna-dashboard has
PAGE, STATIC, ARTIFACTS, HEALTH = "/dashboard", "/static/", "/artifacts/", "/healthz"
# Every path of optuna-dashboard: no empty or dotted segment, nothing encoded.
TARGET = re.compile(r"(?:/(?!\.+(?:[/?]|$))[A-Za-z0-9._~-]+)*/?(?:\?[!-~]*)?", re.ASCII)
REFUSAL = "fmnist_optuna.refusal"  # key of a request's environment: what `Guard.look` said of its head, if asked
HIDDEN_FROM_PAGES = re.compile(r"HTTP_(X_.*|FORWARDED|AUTHORIZATION|COOKIE)")

CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
# The page brings its own script, styles in place, and asks nobody else.
OF_THE_PAGE = (
    f"{CLOSED}; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "media-src 'self'; connect-src 'self'; font-src 'self' data:"
)
OF_PICTURES = f"{CLOSED}; style-src 'unsafe-inline'; sandbox"  # an SVG may style itself, and run nothing
ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml")
OTHER_TYPES = ("text/csv", "audio/mpeg", "audio/wav", "video/mp4", "video/webm")  # that the page itself can show
BYTES = "application/octet-stream"

Headers = list[tuple[str, str]]
Trouble = Callable[[], str | None]  # what is wrong with a server, in one line; None when all is well
ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]  # of WSGI

logger = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818
    """A request that is not let through.

    Args:
        status: Of the answer.
        reason: In one sentence, for people.
        headers: Beyond those of every answer.
    """

    def __init__(self, status: str, reason: str, *headers: tuple[str, str]) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Guard:
    """A WSGI application that lets through to another what `access` allows.

    Args:
        find_trouble: What `/healthz` says, to whoever asks.
    """

    def __init__(self, application: WSGIApplication, access: Access, find_trouble: Trouble = lambda: None) -> None:
        self._application = application
        self._access = access
        self._find_trouble = find_trouble
        self._tokens = TokenCheck(access.token) if access.token is not None else None
        self._session = secrets.token_urlsafe(32)  # what a cookie holds: of this server, so it ends with it

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        path = environ["PATH_INFO"]

        def start(status: str, headers: Headers, exc_info: ExceptionInfo | None = None, /) -> Callable[[bytes], object]:
            return start_response(status, add_headers(path, status, headers), exc_info)

        try:
            return self._answer(environ, start)
        except Refusal as refusal:
            is_for_scripts = path.startswith("/api/")
            text = json.dumps({"reason": refusal.reason}) if is_for_scripts else f"{refusal.reason}\n"
            kind = "application/json" if is_for_scripts else "text/plain; charset=utf-8"
            return answer(environ, start, refusal.status, text, ("Content-Type", kind), *refusal.headers)

    def look(self, environ: WSGIEnvironment) -> Refusal | None:
        """Why a request with a body is refused, by its head alone; None when its body may come."""
        try:
            port = self._check_address(environ)
            self._check_method(environ["REQUEST_METHOD"])
            if environ["REQUEST_METHOD"] in READING:
                raise Refusal("400 Bad Request", "A request that reads must have no body.")
            self._check_visitor(environ, _name_cookie(port))
        except Refusal as refusal:
            return refusal
        return None

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        if (refusal := environ.get(REFUSAL)) is not None:
            raise refusal
        port = self._check_address(environ)
        if environ["PATH_INFO"] == HEALTH and environ["REQUEST_METHOD"] in READING:
            return answer_health(environ, start, self._find_trouble)
        self._check_method(environ["REQUEST_METHOD"])
        if (entering := self._enter(environ, start, _name_cookie(port))) is not None:
            return entering
        self._check_visitor(environ, _name_cookie(port))
        return self._application(_strip(environ), start)

    def _check_visitor(self, environ: WSGIEnvironment, cookie: str) -> None:
        """Refuse who has neither session nor token, and a change from elsewhere than the dashboard's own page."""
        has_session = self._tokens is None or self._has_session(environ, cookie)
        if self._tokens is not None and not has_session:
            self._check_bearer(self._tokens, environ)
        if environ["REQUEST_METHOD"] in CHANGING:
            _check_origin(environ, must_be_known=has_session)

    def _check_address(self, environ: WSGIEnvironment) -> str:
        """Refuse another name than ours, and a target that is no path of ours; returns the port that was asked."""
        authority = split_authority(environ.get("HTTP_HOST", ""))  # one that came twice is joined by a comma
        if authority is None or authority[0] not in self._access.hosts:
            raise Refusal(
                "421 Misdirected Request",
                "The Host header must name this dashboard: a loopback name, --host, or a name given as --allow-host.",
            )
        if not TARGET.fullmatch(environ.get("REQUEST_URI", "")):
            raise Refusal("400 Bad Request", "The target must be a path of the dashboard.")
        return authority[1] or "80"

    def _check_method(self, method: str) -> None:
        allowed = (*READING, *CHANGING) if self._access.is_writable else READING
        if method in allowed:
            return
        reason = "read-only: start the dashboard with --writable to change studies"
        raise Refusal(
            "405 Method Not Allowed",
            reason if method in CHANGING else f"The method must be one of {', '.join(allowed)}.",
            ("Allow", ", ".join(allowed)),
        )

    def _has_session(self, environ: WSGIEnvironment, cookie: str) -> bool:
        # By hand: other servers on this machine set cookies for its names too, and `http.cookies` gives up at some.
        pairs = (pair.strip().partition("=") for pair in environ.get("HTTP_COOKIE", "").split(";"))
        values = [value.encode(errors="replace") for name, _, value in pairs if name == cookie]
        return any(secrets.compare_digest(value, self._session.encode()) for value in values)

    def _enter(self, environ: WSGIEnvironment, start: StartResponse, cookie: str) -> Iterable[bytes] | None:
        """Exchange a token in the address for a cookie, and lead to the same page without it."""
        query = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if self._tokens is None or not given or environ["REQUEST_METHOD"] not in READING:
            return None
        if not self._has_session(environ, cookie):
            _check_token(self._tokens, given[0] if len(given) == 1 else "", environ)
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        target = environ["PATH_INFO"] + (f"?{rest}" if rest else "")
        session = ("Set-Cookie", f"{cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict")
        if environ.get("HTTP_SEC_FETCH_SITE", "none") in ("none", "same-origin"):
            return answer(environ, start, "303 See Other", "", ("Location", target), session)
        # After a redirect that began at another site a strict cookie is not sent; from a page of ours it is.
        kind = ("Content-Type", "text/plain; charset=utf-8")
        return answer(environ, start, "200 OK", "Welcome.\n", kind, ("Refresh", f"0; url={target}"), session)

    def _check_bearer(self, tokens: TokenCheck, environ: WSGIEnvironment) -> None:
        scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            raise Refusal(
                "401 Unauthorized",
                "A token is needed: open the link with ?token= that was printed when the dashboard started (or put the "
                "token of its token file there), or send it as Authorization: Bearer.",
                ("WWW-Authenticate", "Bearer"),
            )
        _check_token(tokens, token.strip(" "), environ)


def _name_cookie(port: str) -> str:
    return f"fmnist_optuna_{port}"  # browsers do not tell ports apart


def answer(
    environ: WSGIEnvironment, start: StartResponse, status: str, text: str, *headers: tuple[str, str]
) -> Iterable[bytes]:
    """A short answer of our own; to HEAD without its text."""
    body = text.encode()
    start(status, [*headers, ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def answer_health(environ: WSGIEnvironment, start: StartResponse, find_trouble: Trouble) -> Iterable[bytes]:
    """`ok`, or 503 and what is wrong."""
    trouble = find_trouble()
    status = "200 OK" if trouble is None else "503 Service Unavailable"
    return answer(environ, start, status, trouble or "ok", ("Content-Type", "text/plain; charset=utf-8"))


def _check_token(tokens: TokenCheck, given: str, environ: WSGIEnvironment) -> None:
    is_right = tokens.is_right(given)
    if is_right is None:
        seconds = 1 + int(tokens.seconds_to_wait())
        raise Refusal(
            "429 Too Many Requests",
            f"Too many wrong tokens came; no token is looked at for {seconds} s.",
            ("Retry-After", str(seconds)),
        )
    if not is_right:
        log_event(logger, logging.WARNING, "wrong_token", client=environ.get("REMOTE_ADDR"))
        raise Refusal("401 Unauthorized", "The token is wrong.", ("WWW-Authenticate", "Bearer"))


def _check_origin(environ: WSGIEnvironment, must_be_known: bool) -> None:
    """Let a change through only from the dashboard's own page, or from a script that sent the token itself."""
    origin, site = environ.get("HTTP_ORIGIN"), environ.get("HTTP_SEC_FETCH_SITE")
    host = environ["HTTP_HOST"].lower()
    is_ours = origin is not None and origin.lower() in (f"http://{host}", f"https://{host}")
    is_other = (origin is not None and not is_ours) or (site is not None and site != "same-origin")
    if is_other or (must_be_known and not is_ours):
        raise Refusal("403 Forbidden", "A change must come from the dashboard's own page, or with the token as Bearer.")


def _strip(environ: WSGIEnvironment) -> WSGIEnvironment:
    """What the pages need to know of a request: no credentials, nothing that a proxy or a client claims about it."""
    kept = {name: value for name, value in environ.items() if not HIDDEN_FROM_PAGES.fullmatch(name)}
    return {"HTTP_ACCEPT_ENCODING": "", **kept}  # optuna-dashboard fails without one


def add_headers(path: str, status: str, headers: Headers) -> Headers:
    """The headers of an answer with those of every answer, which win.

    Args:
        path: That was asked for.
        status: Of the answer.
        headers: As the application has them.
    """
    is_good = status.startswith(("200", "206", "304"))
    types = [value.partition(";")[0].strip().lower() for name, value in headers if name.lower() == "content-type"]
    ours = dict(ALWAYS)
    ours["Content-Security-Policy"] = CLOSED
    if is_good and path.startswith(ARTIFACTS):
        ours |= _of_artifact(types[0] if types else BYTES)
    elif is_good and path.startswith(PAGE):
        ours["Content-Security-Policy"] = OF_THE_PAGE
    ours["Cache-Control"] = "no-cache" if is_good and path.startswith(STATIC) else "no-store"
    dropped = {"server", "content-encodings", *(name.lower() for name in ours)}  # one of them is a typing error there
    kept = [(name, value) for name, value in headers if not _is_dropped(name.lower(), dropped)]
    return [*kept, *ours.items()]


def _is_dropped(name: str, dropped: set[str]) -> bool:
    return name in dropped or name.startswith("access-control-")


def _of_artifact(claimed: str) -> dict[str, str]:
    """Headers of an artifact, whose type was claimed by whoever stored it: nothing of it may run as our page."""
    if claimed in PICTURES:
        return {"Content-Type": claimed, "Content-Security-Policy": OF_PICTURES, "Content-Disposition": "inline"}
    return {
        "Content-Type": claimed if claimed in OTHER_TYPES else BYTES,
        "Content-Security-Policy": f"{CLOSED}; sandbox",
        "Content-Disposition": "attachment",
    }
