"""A confirmation of the small study: made by points and seeds, ended by values, and outgrown by the grid."""

from collections.abc import Mapping, Sequence

from small_study import FINGERPRINT, begin_trial, finish_cell, finish_trial, make_spec, prune_trial

from fmnist_optuna.running.following import following_spec
from fmnist_optuna.search.cell import TRAINING_SEED, Params
from fmnist_optuna.study.joining import create_or_join
from fmnist_optuna.study.session import Session

LARGE, SMALL = {"hidden_size": 128, "dropout_rate": 0.5}, {"hidden_size": 64, "dropout_rate": 0.5}  # the best, another
N_PARAMETERS = {64: 1000, 128: 2000}


def confirm(session: Session, points: Sequence[Params], n_seeds: int) -> Session:
    """Create or join the confirmation of some points."""
    cells = [{**point, TRAINING_SEED: seed} for seed in range(1, n_seeds + 1) for point in points]
    spec = following_spec(session.record.spec, f"{session.record.name}/confirm", cells)
    record, _ = create_or_join(session.storage, spec, FINGERPRINT, cells, parent=session.record)
    return Session(session.storage, record, "confirming")


def finish(
    confirming: Session, values: Mapping[int, Sequence[float]], diverged: Sequence[tuple[int, int]] = ()
) -> None:
    """Give each cell the value of its hidden size and seed; those in `diverged` have none. Each has its own weights."""
    while (claim := confirming.ledger.claim("confirming", confirming.ledger.generation() or 0)) is not None:
        trial_id = begin_trial(confirming, claim)
        seed, hidden_size = int(claim.params[TRAINING_SEED]), int(claim.params["hidden_size"])
        confirming.optuna_storage.set_trial_user_attr(trial_id, "n_parameters", N_PARAMETERS[hidden_size])
        confirming.optuna_storage.set_trial_user_attr(trial_id, "weights_sha256", f"{hidden_size} {seed}")
        if (hidden_size, seed) in diverged:
            prune_trial(confirming, trial_id, 0.1)
        else:
            finish_trial(confirming, trial_id, values[hidden_size][seed - 1])
        finish_cell(confirming, claim, trial_id)


def grow(session: Session) -> Session:
    """The small study with two cells more, which wait."""
    larger = make_spec({"hidden_size": [64, 128, 256], "dropout_rate": [0.0, 0.5]})
    record, _ = create_or_join(session.storage, larger, FINGERPRINT)
    return Session(session.storage, record, "worker")
