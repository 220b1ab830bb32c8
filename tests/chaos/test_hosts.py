"""Workers on two hosts and Postgres on a third: what networks, clocks and power cuts do; no cell is lost or doubled."""

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import NAME, create_database, wait_until
from hosts import Host, execute
from network import RANGE, Network, NoNetworkError, inside
from postgres_server import NoServerError, PostgresServer
from sqlalchemy import make_url, select
from stubs import Stubs, freeze_in_transaction
from victims import start, work_until_done

from fmnist_optuna.ledger.records import Timing
from fmnist_optuna.ledger.states import State
from fmnist_optuna.ledger.tables import cells

pytestmark = pytest.mark.cluster

Tally = Callable[..., None]
Note = Callable[[str], None]
TIMING = Timing.for_lease(3.0)
N_CELLS = 12
EPOCH_SECONDS = 0.4  # two a cell
END_SECONDS = 90.0  # far less than the kernel goes on sending to a host that does not answer
PATIENCE_SECONDS = 120.0
FIVE_MINUTES = 300.0


@dataclass
class Place:
    """Two hosts for workers, `a` and `b`, and `db`, where the server and the test are."""

    network: Network
    server: PostgresServer
    a: Host
    b: Host

    @property
    def url(self) -> str:
        """A new database, as the test has it."""
        return create_database(self.server.url)

    def url_there(self, url: str) -> str:
        """A URL as the other hosts have it."""
        return make_url(url).set(host=self.network.address("db")).render_as_string(hide_password=False)

    def clients(self, host: str, state: str = "%") -> int:
        """How many connections the server takes for those of a host, in such a state."""
        import psycopg

        with psycopg.connect(self.server.url) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE client_addr = %s::inet AND state LIKE %s"
            row = connection.execute(query, [self.network.address(host), state]).fetchone()
        return 0 if row is None else int(row[0])


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Three hosts, their cables, and nothing on them."""
    start(time.sleep, 0.0).join()  # the server of processes must not be within a namespace that goes
    try:
        with Network(["db", "a", "b"]) as made:
            yield made
    except NoNetworkError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def place(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything switched on; the test itself is on the host of the server."""
    with ExitStack() as stack:
        stack.enter_context(inside(network.name("db")))
        try:
            server = start_server(stack)
        except NoServerError as error:
            pytest.skip(str(error))
        folder = tmp_path_factory.mktemp("hosts")
        hosts = [Host(network, name, folder) for name in ("a", "b")]
        for host in hosts:
            stack.callback(host.stop)
        yield Place(network, server, *hosts)


def start_server(stack: ExitStack) -> PostgresServer:
    """One that listens to the other hosts too."""
    import tempfile

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fmnist-pg-", dir="/tmp")))
    server = PostgresServer(folder, options=("listen_addresses=*",))
    with (folder / "data" / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {RANGE} scram-sha-256\n")
    stack.callback(server.stop)
    server.start()
    return server


class Scene:
    """A study on the server, and a sound network at its begin and its end."""

    def __init__(self, place: Place, n_cells: int, timing: Timing) -> None:
        self.place, self.timing = place, timing
        url = place.url
        self.url = place.url_there(url)
        self.stubs = Stubs(url, n_cells, timing)
        self.pids: dict[str, int] = {}

    def start(self, *names: str, target: Callable[..., None] = work_until_done) -> None:
        """A worker on each of these hosts."""
        more = (EPOCH_SECONDS, PATIENCE_SECONDS) if target is work_until_done else ()
        for name in names:
            host = getattr(self.place, name)
            self.pids[name] = host.start(target, self.url, NAME, f"worker-{name}", self.timing, *more)

    def wait_for(self, n_cells: int) -> None:
        """Until so many more are done."""
        least = self.stubs.n_done + n_cells
        wait_until(lambda: self.stubs.n_done >= least, f"{n_cells} more cells")

    def wait_for_claim(self, name: str) -> None:
        """Until the worker of a host has just claimed one more cell."""
        before = self._held_by(name)
        wait_until(lambda: self._held_by(name) - before, f"another claim of worker-{name}")

    def _held_by(self, name: str) -> set[str]:
        """The cell that a worker holds, once its trial is bound."""
        query = select(cells.c.cell_id).where(
            cells.c.worker == f"worker-{name}", cells.c.state == State.RUNNING, cells.c.trial_id.is_not(None)
        )
        with self.stubs.session.storage.read() as connection:
            return set(connection.execute(query).scalars())

    def assert_ended(self, *names: str) -> None:
        """These workers have ended by themselves, as nothing is left to do."""
        for name in names:
            host = getattr(self.place, name)
            assert host.join(self.pids[name], END_SECONDS) == 0, host.errors

    def wait_for_take_over(self, note: Note) -> None:
        """Until another host has the cell of one that does not renew: its lease is over, and no other cell waits."""
        began = time.monotonic()
        wait_until(lambda: self.stubs.claims[-1] == 2, "the cell of the host that is away")
        note(
            f"the other host has the cell after {time.monotonic() - began:.1f} s, lease {self.timing.lease_seconds:g} s"
        )

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.stubs.session.storage.close()
        for name in ("a", "b"):
            getattr(self.place, name).restart()
            self.place.network.cables.lose(name)
            self.place.network.cables.delay(name, 0.0)


@pytest.mark.parametrize("way", ["link", "interface"])
def test_a_host_is_cut_off_for_longer_than_a_lease(place: Place, tally: Tally, note: Note, way: str) -> None:
    """Its cell goes to the other host; back again, it drops what it trained meanwhile and goes on."""
    cut = place.network.set_link if way == "link" else place.network.set_interface
    with Scene(place, N_CELLS, TIMING) as scene:
        scene.start("a", "b")
        scene.wait_for_claim("a")
        cut("a", "down")
        scene.wait_for_take_over(note)
        cut("a", "up")
        scene.assert_ended("a", "b")
        assert scene.stubs.claims[-2:] == [1, 2]
        assert place.a.errors.count("storage_outage") >= 1
        scene.stubs.prove(tally, outages=1)


def test_connections_that_the_network_forgot(place: Place, tally: Tally, note: Note) -> None:
    """What waits for an answer on one gives it up in time for the lease: nobody takes the cell over."""
    with Scene(place, N_CELLS, Timing.for_lease(12.0)) as scene:
        scene.start("a", "b")
        scene.wait_for_claim("a")
        place.network.cables.forget("a")
        began = time.monotonic()
        wait_until(lambda: "storage_outage" in place.a.errors, "the end of a connection")
        note(f"a forgotten connection is given up after {time.monotonic() - began:.1f} s, lease 12 s")
        scene.assert_ended("a", "b")
        assert scene.stubs.claims == [1] * N_CELLS
        scene.stubs.prove(tally, outages=1)


@pytest.mark.parametrize("lost", ["sent", "received"])
def test_one_way_is_lost_for_longer_than_a_lease(place: Place, tally: Tally, note: Note, lost: str) -> None:
    """Statements that never arrive, or that are done and nobody hears of it: the cell has one result all the same."""
    with Scene(place, N_CELLS, TIMING) as scene:
        scene.start("a", "b")
        scene.wait_for_claim("a")
        place.network.cables.lose("a", **{lost: True})
        scene.wait_for_take_over(note)
        place.network.cables.lose("a")
        scene.assert_ended("a", "b")
        scene.stubs.prove(tally, outages=1)


def test_a_host_half_a_second_away(place: Place, tally: Tally) -> None:
    """Each round trip takes so long: its cells take their time, and nobody takes them over."""
    with Scene(place, N_CELLS, Timing()) as scene:
        place.network.cables.delay("a", 0.25)  # each way
        scene.start("a")
        wait_until(lambda: scene.stubs.claims[-1] == 1, "the first claim of the distant host")
        scene.start("b")
        scene.assert_ended("a", "b")
        assert scene.stubs.claims == [1] * N_CELLS
        scene.stubs.prove(tally)


def test_the_host_of_the_server_is_cut_off(place: Place, tally: Tally) -> None:
    """For longer than a lease: everybody waits, and as nobody could renew, nobody is taken for dead."""
    with Scene(place, N_CELLS, Timing.for_lease(6.0)) as scene:
        scene.start("a", "b")
        scene.wait_for(4)
        place.network.set_link("db", "down")
        time.sleep(1.5 * scene.timing.lease_seconds)
        place.network.set_link("db", "up")
        scene.assert_ended("a", "b")
        assert scene.stubs.claims == [1] * N_CELLS
        scene.stubs.prove(tally, outages=1)


def test_the_host_of_the_server_loses_its_power(place: Place, tally: Tally) -> None:
    """The connections are half-open: the clients hear nothing of the server's end until it is there again."""
    with Scene(place, N_CELLS, TIMING) as scene:
        scene.start("a", "b")
        scene.wait_for(4)
        place.network.cables.lose("db", sent=True, received=True)
        place.server.stop()
        time.sleep(2 * TIMING.lease_seconds)
        place.server.start()
        place.network.cables.lose("db")
        scene.assert_ended("a", "b")
        scene.stubs.prove(tally, outages=1)


def test_a_host_is_rebooted(place: Place, tally: Tally) -> None:
    """Its name, its address and its pids are the same again; its cell waits for the lease, as nobody saw its end."""
    with Scene(place, N_CELLS, TIMING) as scene:
        scene.start("a", "b")
        before = scene.pids["a"]
        scene.wait_for_claim("a")
        place.a.cut_power()
        assert place.clients("a") > 0  # the server knows nothing of it
        place.a.boot()
        scene.start("a")
        assert scene.pids["a"] == before
        scene.assert_ended("a", "b")
        assert scene.stubs.claims[-2:] == [1, 2]
        scene.stubs.prove(tally, kills=1)


def test_a_host_loses_its_power_in_a_transaction(place: Place, tally: Tally) -> None:
    """The server ends the transaction after a lease, and with it the locks that nobody would release."""
    with Scene(place, 3, TIMING) as scene:
        scene.start("a", target=freeze_in_transaction)
        wait_until(lambda: place.a.is_stopped(scene.pids["a"]), "the stop")
        assert place.clients("a", "idle in transaction") == 1
        place.a.cut_power()
        assert place.clients("a", "idle in transaction") == 1  # the server knows nothing of it
        place.a.boot()
        scene.start("a", "b")
        scene.assert_ended("a", "b")
        assert scene.stubs.claims == [1, 1, 2]
        scene.stubs.prove(tally, kills=1)


@pytest.fixture(scope="module")
def shifting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that shifts the clock of a process that loads it."""
    if shutil.which("gcc") is None:
        pytest.skip("it takes gcc to make clocks go wrong")
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, source, "-ldl"], check=True)
    return library


def test_clocks_that_are_minutes_off(place: Place, shifting: Path, tmp_path: Path, tally: Tally) -> None:
    """One host five minutes behind, the other ahead, and in mid-study they jump to the other side."""
    with Scene(place, N_CELLS, Timing.for_lease(6.0)) as scene:
        for name, sign in (("a", -1), ("b", 1)):
            shift = tmp_path / name
            shift.write_bytes(struct.pack("d", sign * FIVE_MINUTES))
            variables = {"LD_PRELOAD": str(shifting), "SHIFTED_CLOCK": str(shift), "PYTHONPATH": ":".join(sys.path)}
            order = (scene.url, NAME, f"worker-{name}", scene.timing, EPOCH_SECONDS, PATIENCE_SECONDS)
            script = f"import victims; from victims import Timing; victims.work_until_done{order!r}"
            scene.pids[name] = getattr(place, name).start(execute, [sys.executable, "-c", script], variables)
        scene.wait_for(10)
        for name, sign in (("a", 1), ("b", -1)):
            with (tmp_path / name).open("r+b") as file:
                os.pwrite(file.fileno(), struct.pack("d", sign * FIVE_MINUTES), 0)
        scene.assert_ended("a", "b")
        assert scene.stubs.claims == [1] * N_CELLS
        scene.stubs.prove(tally)
