"""One connection to the dashboard's server: a request is refused by its head, before anything of its body is read.

The server underneath, waitress, reads a whole request before it asks the application. A body that nobody may send would
so be kept first and refused then.
"""

import socket
from collections.abc import Callable
from wsgiref.types import WSGIEnvironment

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask

from fmnist_optuna.pages.guard import REFUSAL, Refusal, add_headers

Look = Callable[[WSGIEnvironment], Refusal | None]


class Channel(HTTPChannel):
    """A connection.

    Args:
        look: Told the head of a request that has a body, says whether it is refused.
        server: As waitress gives it, as all that follow.
    """

    def __init__(
        self,
        look: Look,
        server: object,
        sock: socket.socket,
        addr: object,
        adj: object,
        map: dict[int, object] | None = None,  # noqa: A002 - so it is called
    ) -> None:
        self.look = look
        super().__init__(server, sock, addr, adj, map)

    def parser_class(self, adj: object) -> "_Request":
        """What waitress makes of each request."""
        return _Request(self, adj)

    def error_task_class(self, channel: HTTPChannel, request: HTTPRequestParser) -> ErrorTask:
        """What answers a request that waitress itself refuses."""
        return _ErrorTask(channel, request)

    def task_class(self, channel: HTTPChannel, request: HTTPRequestParser) -> WSGITask:
        """What answers any other."""
        return _Task(channel, request)


class _Request(HTTPRequestParser):
    refusal: Refusal | None = None

    def __init__(self, channel: Channel, adj: object) -> None:
        super().__init__(adj)
        self._channel = channel

    def received(self, data: bytes) -> int:
        """Take what came; returns how much of it belongs to this request."""
        had_head = self.headers_finished
        n_taken = super().received(data)
        has_more = self.headers_finished and not had_head and self.body_rcv is not None
        if has_more and not self.completed:
            self.refusal = self._channel.look(_Task(self._channel, self).get_environment())
        if self.refusal is not None or (has_more and self.completed):
            self._drop_body()
            n_taken = len(data)
        if self.completed:
            self.expect_continue = False  # waitress would wait for a body, whatever it has to answer
        return n_taken

    def _drop_body(self) -> None:
        """Let the answer be the last one of the connection, and what still comes be read by nobody."""
        self.close()
        self.body_rcv, self.completed = None, True
        self.headers["CONNECTION"] = "close"


class _Task(WSGITask):
    def get_environment(self) -> WSGIEnvironment:
        """The request as the application gets it."""
        return {**super().get_environment(), REFUSAL: self.request.refusal}


class _ErrorTask(ErrorTask):
    """What the server answers by itself, as to a request that is none, with the headers of every answer."""

    def execute(self) -> None:
        self.response_headers.extend(add_headers("", "", []))
        super().execute()
