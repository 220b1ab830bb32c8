"""A search that is joined with another study file: more trials, a wider space, further points, or a refusal."""

from collections.abc import Callable

import pytest
from optuna.distributions import IntDistribution
from search_study import N_TRIALS, SAMPLERS, claim, points
from small_study import ON_SQLITE, POSTGRES_MORE, SPACE, create_study, make_spec, search_spec, work_off

from fmnist_optuna.errors import JoinRefusedError
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.study.cuts import verify_study
from fmnist_optuna.study.session import Session

Sessions = Callable[..., Session]


def join(session: Session, spec: StudySpec) -> Session:
    """The study with a later study file."""
    return Session(session.storage, create_study(session.storage, spec), "later")


@SAMPLERS
@ON_SQLITE
def test_more_trials_go_on(new_session: Sessions, sampler: str) -> None:
    """The cells that are there keep their points and results, and those of a study that had as many at once follow."""
    session = new_session("worker", search_spec(sampler, 5))
    work_off(session)
    before = points(session)
    later = join(session, search_spec(sampler, N_TRIALS))
    assert later.history.counts().waiting == N_TRIALS - 5
    work_off(later)
    assert points(later)[:5] == before
    assert verify_study(later).ok
    if sampler != "tpe":  # what that suggests depends on what is known
        at_once = Session(later.storage, create_study(later.storage, search_spec(sampler, N_TRIALS, "at-once")), "w")
        assert points(at_once) == points(later)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
@POSTGRES_MORE
def test_a_space_may_become_wider(new_session: Sessions, sampler: str) -> None:
    """Cells keep their points, new ones are of the wider space, and Optuna has one range for all trials."""
    session = new_session("worker", search_spec(sampler, 6))
    work_off(session)
    before = points(session)
    wider = {**SPACE, "hidden_size": {"low": 32, "high": 4096, "step": 32}}
    later = join(session, search_spec(sampler, 14, space=wider))
    work_off(later)
    assert points(later)[:6] == before
    assert any(int(params["hidden_size"]) > 512 for params in points(later))
    trials = later.optuna_storage.get_all_trials(later.record.study_id)
    assert {trial.distributions["hidden_size"] for trial in trials} == {IntDistribution(32, 4096, step=32)}
    assert verify_study(later).ok


@ON_SQLITE
def test_an_earlier_study_file_changes_nothing(new_session: Sessions) -> None:
    """Fewer trials, or the narrower space of then, are what the study has already."""
    session = new_session("worker", search_spec("random", 6))
    later = join(session, search_spec("random", 9, space={**SPACE, "dropout_rate": {"low": 0.0, "high": 0.9}}))
    again = join(session, search_spec("random", 6))
    assert again.record.spec == later.record.spec
    assert again.history.counts().total == 9


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        (search_spec("tpe", 6), 'search.sampler: the study has "random", this run "tpe"'),
        (make_spec(), 'search.sampler: the study has "random", this run nothing'),
        (
            search_spec("random", 6, search={"sampler": "random", "n_trials": 6, "seed": 1}),
            "search.seed: the study has 0",
        ),
        (
            search_spec("random", 6, space={**SPACE, "act": ["gelu", "relu"]}),
            'space.act: the study has "relu", "gelu", this run "gelu", "relu"',
        ),
        (
            search_spec("random", 6, space={**SPACE, "dropout_rate": {"low": 0.1, "high": 0.5}}),
            "space.dropout_rate: the study has 0.0 to 0.5, this run 0.1 to 0.5",
        ),
        (search_spec("random", 6, space={"act": ["relu", "gelu"]}), "space names: the study has ['act', 'alpha',"),
    ],
)
@ON_SQLITE
def test_another_search_is_refused(new_session: Sessions, spec: StudySpec, line: str) -> None:
    """Another sampler or seed, a space that does not hold the old one: the line says both."""
    session = new_session("worker", search_spec("random", 6))
    with pytest.raises(JoinRefusedError) as raised:
        create_study(session.storage, spec)
    assert f"  {line}" in str(raised.value)
    assert session.history.counts().total == 6


@SAMPLERS
@ON_SQLITE
def test_enqueued_points_are_tried_first(new_session: Sessions, sampler: str) -> None:
    """In their order, with what they leave open drawn; further ones come with further cells."""
    first = [{"hidden_size": 64, "act": "relu"}, {"learning_rate": 0.01}]
    session = new_session("worker", search_spec(sampler, 3, enqueue=first))
    assert (claim(session).params["hidden_size"], claim(session).params["learning_rate"]) == (64, 0.01)
    session.ledger.retry_failed()
    later = join(session, search_spec(sampler, 5, enqueue=[*first, {"hidden_size": 96}]))
    assert points(later)[3]["hidden_size"] == 96
    with pytest.raises(JoinRefusedError, match=r"enqueue: each further point must .* search.n_trials to at least 6"):
        join(session, search_spec(sampler, 5, enqueue=[*first, {"hidden_size": 96}, {"hidden_size": 32}]))
    assert {cell.params.get("act") for cell in later.history.cells() if cell.number == 0} == {"relu"}
