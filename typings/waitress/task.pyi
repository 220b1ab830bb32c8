from typing import Any

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser

class _Task:
    channel: HTTPChannel
    request: Any  # what the channel's `parser_class` made
    response_headers: list[tuple[str, str]]
    def __init__(self, channel: HTTPChannel, request: HTTPRequestParser) -> None: ...
    def execute(self) -> None: ...

class ErrorTask(_Task): ...

class WSGITask(_Task):
    def get_environment(self) -> dict[str, Any]: ...
