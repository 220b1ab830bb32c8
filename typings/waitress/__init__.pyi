"""What the package uses of waitress, 3.0."""

from typing import Any

def create_server(application: Any, **adjustments: Any) -> Any: ...
