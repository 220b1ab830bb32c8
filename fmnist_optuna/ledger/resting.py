"""A pool of connections to Postgres that keeps at most one, and closes it when it has rested for a moment.

A worker needs the database for some milliseconds an epoch, and every connection is a process of the server's. So two
hundred workers that train hold a handful, and those that wait for one another hold one each.
"""

import logging
import threading
import time

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util.queue import Empty

REST_SECONDS = 1.0  # longer than between the statements of a trial; a new connection takes some 5 ms and 6 round trips


class RestingPool(QueuePool):
    """QueuePool whose connections are closed once they have rested for REST_SECONDS; others are made when needed.

    A connection that was not used for longer than that may be broken. As none is kept, none is asked whether it lives
    before it is used, which would be a round trip each time.
    """

    _returned_at = 0.0
    _closer: threading.Thread | None = None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        super()._do_return_conn(record)
        self._returned_at = time.monotonic()
        if self._closer is None or not self._closer.is_alive():
            self._closer = threading.Thread(target=self._close_rested, name="connections", daemon=True)
            self._closer.start()

    def _close_rested(self) -> None:
        """Close what rests once nothing was returned for a while."""
        while (left := self._returned_at + REST_SECONDS - time.monotonic()) > 0:
            time.sleep(left)
        self._closer = None  # before the look: who returns one meanwhile starts another closer
        while (record := self._take_rested()) is not None:
            record.close()
            self._dec_overflow()

    def _take_rested(self) -> ConnectionPoolEntry | None:
        try:
            return self._pool.get(False)
        except Empty:
            return None


# SQLAlchemy names the logger of a pool after its class, and so would tell of every connection among what we log.
logging.getLogger(f"{__name__}.{RestingPool.__name__}").setLevel(logging.WARNING)
