"""Who is told what happens during a run."""

from fmnist_optuna.data.source import ResolvedData
from fmnist_optuna.study.session import Session


class Observer:
    """Is told what happens during a run; each method does nothing unless overridden."""

    def asking(self, teacher: str) -> None:
        """A teacher is asked for its answers to all images, which may take minutes; described in words."""

    def scoring(self, what: str) -> None:
        """Stored weights are scored on the test images, which may take minutes; whose they are in words."""

    def prepared(self, session: Session, data: ResolvedData, n_new_cells: int) -> None:
        """The study is there and its cells are seeded."""

    def connected(self, cluster: str) -> None:
        """Workers may run on the nodes of this cluster, which is described in one line."""

    def opened(self, address: str) -> None:
        """The dashboard listens at this address."""

    def tick(self, session: Session) -> None:
        """The workers are at it; called about twenty times a second."""

    def stopping(self, how: str) -> None:
        """The workers were asked to give their cells back."""
