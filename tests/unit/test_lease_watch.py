"""When a lease counts as expired: every promise of `LeaseWatch`, with a clock of the test."""

import pytest

from fmnist_optuna.ledger.records import HeldCell, Timing
from fmnist_optuna.study.recovery import LeaseWatch

RENEWAL_SECONDS = 10.0


class Watch:
    """A LeaseWatch and its clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.watch = LeaseWatch(RENEWAL_SECONDS, clock=lambda: self.now)

    def look(self, now: float, *held: HeldCell) -> list[HeldCell]:
        self.now = now
        return self.watch.expired(list(held))


def held(token: str = "t1", lease_until: float = 60.0, *, is_expired: bool = True, cell_id: str = "a") -> HeldCell:
    return HeldCell(cell_id, token, "worker", lease_until, None, is_expired)


def test_the_first_look_never_finds_a_death() -> None:
    """The start of a process says nothing about others, however old a lease is."""
    assert Watch().look(1e9, held()) == []


def test_two_looks_two_renewals_apart_find_it() -> None:
    """Past, and unchanged for 20 s."""
    watch = Watch()
    assert [watch.look(now, held()) for now in (0.0, 10.0, 19.9, 20.0)] == [[], [], [], [held()]]


def test_a_lease_that_has_not_passed_is_left_alone() -> None:
    """Unchanged is not enough: the database's clock must be past it."""
    watch = Watch()
    assert [watch.look(10.0 * n, held(is_expired=False)) for n in range(7)] == [[]] * 7


@pytest.mark.parametrize("renewed", [held(lease_until=70.0), held(token="t2")], ids=["renewed", "claimed anew"])
def test_a_change_in_between_starts_the_wait_again(renewed: HeldCell) -> None:
    """A renewal or another claim proves that somebody lives."""
    watch = Watch()
    watch.look(0.0, held())
    watch.look(10.0, renewed)
    assert watch.look(20.0, renewed) == []
    assert watch.look(30.0, renewed) == [renewed]


def test_a_gap_between_looks_starts_the_wait_again() -> None:
    """After a suspend of this machine nothing that was seen before counts."""
    watch = Watch()
    watch.look(0.0, held())
    assert watch.look(20.1, held()) == []
    assert watch.look(40.1, held()) == [held()]


def test_a_failed_look_starts_the_wait_again() -> None:
    """After an outage the holders get time to renew."""
    watch = Watch()
    watch.look(0.0, held())
    watch.look(15.0, held())
    watch.watch.forget()
    assert watch.look(20.0, held()) == []
    assert watch.look(40.0, held()) == [held()]


def test_a_cell_that_vanished_and_came_back_is_new() -> None:
    """What was not seen in between was not unchanged."""
    watch = Watch()
    watch.look(0.0, held())
    watch.look(10.0)
    assert watch.look(20.0, held()) == []


def test_cells_are_judged_one_by_one() -> None:
    """The renewal of one says nothing about another."""
    watch = Watch()
    first, second = held(cell_id="a"), held("t2", cell_id="b")
    watch.look(0.0, first)
    watch.look(10.0, first, second)
    assert watch.look(20.0, first, second) == [first]


def test_the_default_timing_keeps_its_proportions_to_the_lease() -> None:
    """A sixth of the lease to renew, a thirtieth to poll."""
    assert Timing.for_lease(60.0) == Timing()
    assert Timing.for_lease(6.0) == Timing(6.0, 1.0, 0.2, 900.0)
