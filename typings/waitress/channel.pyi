import socket
from typing import Any

from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask

class HTTPChannel:
    def __init__(
        self,
        server: object,
        sock: socket.socket,
        addr: object,
        adj: object,
        map: dict[int, object] | None = ...,  # noqa: A002
    ) -> None: ...
    def parser_class(self, adj: object) -> HTTPRequestParser: ...
    def error_task_class(self, channel: HTTPChannel, request: HTTPRequestParser) -> ErrorTask: ...
    def task_class(self, channel: HTTPChannel, request: HTTPRequestParser) -> WSGITask: ...
    def __getattr__(self, name: str) -> Any: ...
