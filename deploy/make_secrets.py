"""Write passwords, URLs and the token of the dashboard into ./secrets for the compose file; what is there stays.

The folder is for its owner alone; its files can be read by all, as containers see them under another user.
"""

import secrets
from pathlib import Path

FOLDER = Path("secrets")
HOST, DATABASE, OWNER, WORKER, READER = "postgres", "fmnist", "fmnist", "worker", "reader"


def main() -> None:
    """Make what is missing."""
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    for user, password_file, url_file in (
        (OWNER, "postgres_password", "storage_url"),
        (WORKER, "worker_password", "worker_url"),
        (READER, "reader_password", "reader_url"),
    ):
        password = _keep(FOLDER / password_file, secrets.token_urlsafe(24))
        _keep(FOLDER / url_file, f"postgresql://{user}:{password}@{HOST}/{DATABASE}")
    _keep(FOLDER / "dashboard_token", secrets.token_urlsafe(32))


def _keep(file: Path, content: str) -> str:
    """The content of a file, which is made if it is missing."""
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(content)
        part.chmod(0o644)
        part.replace(file)
    return file.read_text().strip()


if __name__ == "__main__":
    main()
