"""The codes that a study accepted, one after the other: what a join is compared with, and what trials name.

Owns the rows of `fmnist_codes`. What a code is, and what counts as a difference, is in `fmnist_optuna.spec.code`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.engine import Connection

from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.json_value import Json
from fmnist_optuna.ledger.outages import retrying
from fmnist_optuna.ledger.storage import Storage
from fmnist_optuna.ledger.tables import codes, studies
from fmnist_optuna.spec.code import CodeRecord, code_differences
from fmnist_optuna.spec.study_names import command_of


@dataclass(frozen=True)
class OfferedCode:
    """What a process brings that wants to join a study.

    Args:
        code: The user's code as this process would use it.
        environment: Of this process.
        is_wanted: Whether the study is to go on with this code even if it differs.
    """

    code: CodeRecord
    environment: Mapping[str, Json]
    is_wanted: bool = False


@dataclass(frozen=True)
class AcceptedCode:
    """A code that a study accepted.

    Args:
        accepted_at: Seconds since 1970 UTC.
        environment: Of the process that brought it.
    """

    fingerprint: str
    accepted_at: float
    code: CodeRecord
    environment: Mapping[str, Json]


@retrying
def list_codes(storage: Storage, study_id: int) -> list[AcceptedCode]:
    """Every accepted code, the newest last; none for a study that no process of this version has joined."""
    with storage.read() as connection:
        return _list(connection, study_id)


def _list(connection: Connection, study_id: int) -> list[AcceptedCode]:
    rows = connection.execute(select(codes).where(codes.c.study_id == study_id).order_by(codes.c.position))
    return [
        AcceptedCode(row.fingerprint, row.accepted_at, CodeRecord.unpack(row.code), json.loads(row.environment))
        for row in rows
    ]


@retrying
def join_as_worker(storage: Storage, study_id: int, name: str, offered: OfferedCode) -> AcceptedCode:
    """`join_code` in a transaction of its own.

    Raises:
        JoinRefusedError: The code is not that of the study.
    """
    with storage.write() as connection:
        connection.execute(
            select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update(key_share=True)
        )
        return join_code(connection, storage, study_id, name, offered)


def join_code(connection: Connection, storage: Storage, study_id: int, name: str, offered: OfferedCode) -> AcceptedCode:
    """Compare a code with the newest that the study accepted; a study without any takes what comes.

    Args:
        connection: In a transaction that holds the study's row of `fmnist_studies`.
        name: Of the study, for the refusal.

    Returns:
        The study's newest code: trials of this process are made with it.

    Raises:
        JoinRefusedError: The codes differ, and the new one was not said to be wanted; the text shows where.
    """
    accepted = _list(connection, study_id)
    if accepted:
        lines = code_differences(accepted[-1].code, offered.code)
        if not lines:
            return accepted[-1]
        if not offered.is_wanted:
            raise JoinRefusedError(describe_refusal(name, lines))
    values = {"position": len(accepted) + 1, "accepted_at": storage.now}
    fingerprint = offered.code.fingerprint
    if any(earlier.fingerprint == fingerprint for earlier in accepted):  # back to an earlier one
        is_it = (codes.c.study_id == study_id) & (codes.c.fingerprint == fingerprint)
        connection.execute(codes.update().where(is_it).values(**values))
    else:
        environment = json.dumps(dict(offered.environment))
        key = {"study_id": study_id, "fingerprint": fingerprint}
        connection.execute(codes.insert().values(**key, **values, code=offered.code.pack(), environment=environment))
    return _list(connection, study_id)[-1]


def describe_refusal(name: str, lines: list[str], following: str | None = None) -> str:
    """What a person is told whose code is not that of the study, or of the cells that would be trained again.

    Args:
        name: Of the study that has the other code.
        following: Name of the study in which cells of it would be trained again; None where it is joined itself.
    """
    command = command_of(following or name)
    made = "was made" if following is None else "the cells to confirm were trained"
    another = ", choose another name (--name NEW)," if command == "run" else ""
    return (
        f"study {name}: {made} with other code.\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"Bring that code back{another} or go on with this code beside the results so far: "
        f"fmnist-optuna {'run STUDY.toml' if command == 'run' else command} --accept-code (accepts_code=True in Python)"
    )
