"""What a test cannot do without and this machine may not have."""

import os
from typing import NoReturn

import pytest


def do_without(message: str) -> NoReturn:
    """Skip the test; with CI=true, where everything must be there, fail it."""
    if os.environ.get("CI"):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)
