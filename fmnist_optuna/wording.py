"""How things are said to people, each in one place. Imports nothing of ours."""


def describe_error(error: BaseException) -> str:
    """An exception in one line: type and first line of its text, at most 500 characters."""
    # A database keeps neither NUL nor lone surrogates in a text.
    lines = str(error).replace("\0", "").encode(errors="replace").decode().strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:500] if lines else type(error).__name__
