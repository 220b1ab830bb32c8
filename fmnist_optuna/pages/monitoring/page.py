"""The two pages that a monitor asks for: `/metrics` for Prometheus, and `/healthz`, which says what is wrong."""

from collections.abc import Collection, Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from fmnist_optuna.pages.access import split_authority
from fmnist_optuna.pages.guard import HEALTH, READING, Trouble, answer, answer_health

METRICS = "/metrics"
TEXT = ("Content-Type", "text/plain; charset=utf-8")
NO_SNIFFING = ("X-Content-Type-Options", "nosniff")


class WithMetrics:
    """An application, and `/metrics` beside its pages.

    Args:
        application: The others.
        registry: What is measured.
    """

    def __init__(self, application: WSGIApplication, registry: CollectorRegistry) -> None:
        self._application = application
        self._registry = registry

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if environ["PATH_INFO"] != METRICS:
            return self._application(environ, start_response)
        return answer_metrics(environ, start_response, self._registry)


class MonitoringPages:
    """Both pages and nothing else, for a server of their own.

    Args:
        registry: What is measured.
        find_trouble: What is wrong, if anything.
        hosts: Names that a Host header may have; None for any. A page of any web site, open in a browser on this
            machine, can let its own name point to 127.0.0.1.
    """

    def __init__(self, registry: CollectorRegistry, find_trouble: Trouble, hosts: Collection[str] | None) -> None:
        self._registry = registry
        self._find_trouble = find_trouble
        self._hosts = hosts

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """One request."""
        if (refusal := self._look(environ)) is not None:
            status, reason = refusal
            return answer(environ, start_response, status, f"{reason}\n", TEXT, NO_SNIFFING)
        if environ["PATH_INFO"] == METRICS:
            return answer_metrics(environ, start_response, self._registry)
        return answer_health(environ, start_response, self._find_trouble)

    def _look(self, environ: WSGIEnvironment) -> tuple[str, str] | None:
        """Status and reason of a refusal."""
        authority = split_authority(environ.get("HTTP_HOST", ""))
        if self._hosts is not None and (authority is None or authority[0] not in self._hosts):
            return "421 Misdirected Request", "The Host header must be a loopback name."
        if environ["REQUEST_METHOD"] not in READING:
            return "405 Method Not Allowed", "The method must be GET or HEAD."
        if environ["PATH_INFO"] not in (METRICS, HEALTH):
            return "404 Not Found", f"There are {METRICS} and {HEALTH}."
        return None


def answer_metrics(
    environ: WSGIEnvironment, start_response: StartResponse, registry: CollectorRegistry
) -> Iterable[bytes]:
    """All that is measured, in the form that the scraper prefers."""
    encode, kind = choose_encoder(environ.get("HTTP_ACCEPT", ""))
    body = encode(registry)
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body))), NO_SNIFFING])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
