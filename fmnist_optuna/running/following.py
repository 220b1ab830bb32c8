"""A study that follows from another: points of that, each with seeds, trained by the same code on the same data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmnist_optuna.artifacts.bucket import check_place
from fmnist_optuna.data.sharing import share_arrays
from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.data.split import Splits
from fmnist_optuna.errors import JoinRefusedError, MismatchError
from fmnist_optuna.ledger.codes import OfferedCode, describe_refusal, list_codes
from fmnist_optuna.ledger.records import Attempt
from fmnist_optuna.processes.temporary import temporary_folder
from fmnist_optuna.results.unsettled import advise_on_missing
from fmnist_optuna.running.catching import Catching
from fmnist_optuna.running.observer import Observer
from fmnist_optuna.running.options import RunOptions
from fmnist_optuna.running.preparation import PreparedStudy, prepare_in_child
from fmnist_optuna.running.telling import telling_of_study
from fmnist_optuna.running.training import log_folder_of, train_cells
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.spec.code import code_differences
from fmnist_optuna.spec.reading import restore_spec
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.spec.values import Value
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session
from fmnist_optuna.work.environment import warn_of_environment

MOST_SEEDS = 2**31 - 1  # the end of the range that the trials of a search have: equal however many seeds there are


def following_spec(
    spec: StudySpec, name: str, points: Sequence[Params], training: Mapping[str, object] | None = None
) -> StudySpec:
    """The specification of a study that follows from another: the same but for the pruner, and a grid of the points.

    Numbers are those of the points; of a parameter that is no number all values stay, as Optuna keeps its choices. Of a
    search that is no grid the whole space stays, with the seeds beside it.

    Args:
        name: Of the new study.
        points: Each with its training_seed.
        training: Keys of [training] that are others.
    """
    content = spec.model_dump(mode="json")
    searched = _grid_of(spec, points) if spec.search.is_grid else _space_of(content, points)
    changed = {"name": name, **searched, "pruner": {"name": "none"}}
    changed["training"] = {**content["training"], **(training or {})}
    return restore_spec({**content, **changed}, f"study {name}")


def _grid_of(spec: StudySpec, points: Sequence[Params]) -> dict[str, object]:
    grid: dict[str, tuple[Value, ...]] = {}
    for parameter, values in spec.grid.items():
        used = {point[parameter] for point in points}
        is_number = not any(isinstance(value, str | bool) for value in values)
        grid[parameter] = tuple(sorted(used)) if is_number else values
    grid[TRAINING_SEED] = tuple(sorted({int(point[TRAINING_SEED]) for point in points}))
    return {"grid": grid, "search": {}}


def _space_of(content: Mapping[str, Any], points: Sequence[Params]) -> dict[str, object]:
    """The tables of a search whose cells are given: nothing is drawn, but trials have the ranges of the space."""
    return {
        "search": {**content["search"], "n_trials": len(points), "repeats": 1},
        "space": {**content["space"], TRAINING_SEED: {"low": 1, "high": MOST_SEEDS}},
        "enqueue": [],
    }


def offer_same_code(
    session: Session,
    spec: StudySpec,
    attempts: Sequence[Attempt],
    folder: Path | None,
    is_wanted: bool,
) -> OfferedCode:
    """The code here, rehearsed, which must be what some attempts were trained with.

    Args:
        session: Of the study of these attempts.
        spec: Of the study that follows.
        folder: With arrays of the user's own data; None for a built-in source.
        is_wanted: Whether other code was said to be wanted.

    Raises:
        JoinRefusedError: It differs, and was not.
    """
    record = session.record
    accepted = {code.fingerprint: code for code in list_codes(session.storage, record.study_id)}
    newest = next(reversed(accepted.values()), None)
    used = {attempt.attributes.code or "" for attempt in attempts}
    # A model is of one cell, and a code that was accepted for a larger grid may be of another one.
    cell = None if newest is None else newest.code.cell
    offered = prepare_in_child(spec, record.info, folder, cell).result()[1]
    for fingerprint in sorted(used & accepted.keys()):
        lines = code_differences(accepted[fingerprint].code, offered.code)
        if lines and not is_wanted:
            raise JoinRefusedError(describe_refusal(record.name, lines, spec.name))
        warn_of_environment(record.name, accepted[fingerprint].environment, offered.environment)
    return replace(offered, is_wanted=is_wanted)


def join_following(
    session: Session,
    spec: StudySpec,
    points: Sequence[Params],
    code: OfferedCode | None,
    data: ResolvedData,
    splits: Splits,
) -> PreparedStudy:
    """Create or join a study that follows from another one, whose cells are some points.

    Args:
        session: Of the other.
        code: What is to train; None where all is trained.
        splits: What it is trained on.
    """
    record = session.record
    check_place(record.place)
    following, n_new = create_or_join(
        session.storage, spec, record.data_fingerprint, points, code, parent=record, info=record.info
    )
    prepared = PreparedStudy(Session(session.storage, following, "supervisor"), data, n_new)
    if prepared.session.history.is_over():
        prepared.session.checkpoints.remove_all()  # whoever trained the last cell may have died before this
        return prepared
    return replace(prepared, shared_data=share_arrays(splits, temporary_folder()))


def train_following(prepared: PreparedStudy, options: RunOptions, observer: Observer, catching: Catching) -> bool:
    """Let workers train what is not trained yet; returns whether there was anything.

    Raises:
        MismatchError: The workers die of a seed again and again.
        FmnistOptunaError: Whatever training raises.
    """
    observer.prepared(prepared.session, prepared.data, prepared.n_new_cells)
    if prepared.session.history.counts().is_over:
        return False
    with telling_of_study(prepared.session, prepared.n_new_cells):
        with catching() as caught:
            given_up = train_cells(prepared, options, observer, caught)
        if given_up:
            raise MismatchError(
                f"study {prepared.session.record.name}: every seed must have a result, but the workers of some die: "
                f"{'; '.join(given_up)}; call it again to try them again."
            )
    return True


def seeds_missing(session: Session, options: RunOptions, following: Session, rule: str) -> MismatchError:
    """The error of a study that is over, and lacks results of seeds.

    Args:
        session: Of the search that it follows from.
        following: Of the study.
        rule: What must hold and what came, as a sentence without its full stop.
    """
    name, advice = following.record.name, advise_on_missing(session, following)
    return MismatchError(
        f"study {name}: {rule}; `fmnist-optuna trials {name}` shows why, the logs are in "
        f"{log_folder_of(session, options)}; {advice}."
    )
