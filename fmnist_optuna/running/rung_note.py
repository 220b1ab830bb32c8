"""The note of a study in the dashboard, kept up with its rungs while the study runs."""

import time

from fmnist_optuna.study.session import Session

NOTE_SECONDS = 5.0  # between looks: one statement each, and a few more where something was decided


class RungNote:
    """Writes the note of a study anew after decisions at its rungs, so that a dashboard shows them while they matter.

    Figures and pictures are left to the end: to draw them takes time that workers could train in.

    Args:
        session: Of the study; one without rungs is left alone.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._next_look = 0.0
        self._last_decision = 0

    def tick(self) -> None:
        """Look for decisions since the last look, no more often than every few seconds."""
        now = time.monotonic()
        if now < self._next_look or self._session.ladder is None:
            return
        self._next_look = now + NOTE_SECONDS
        if decided := self._session.rungs.decided(after=self._last_decision):
            self._last_decision = decided[-1].decision_id
            write_note(self._session)


def write_note(session: Session) -> None:
    """Let a dashboard show the note of a study as it stands."""
    try:
        from fmnist_optuna.pages import notes  # loads plotly and optuna-dashboard
    except ImportError:  # said at the end of the run, when the figures are drawn
        return
    notes.write_note(session)
