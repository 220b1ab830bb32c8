"""What a search knew when a point was suggested: of which cells, and of those that still trained their values of then.

What is done never changes, so its cells are named and no more.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from fmnist_optuna.search.cell import Params

Standing = Literal["complete", "pruned", "climbing", "running"]


@dataclass(frozen=True)
class KnownCell:
    """A cell with a point, as a suggestion sees it.

    Args:
        standing: Complete; pruned; "climbing", which is to be compared with others at the rung that it has come to, or
            was and goes on; or "running", of which nothing is known but its point.
        n_epochs: After which it was pruned, or which the rung is; 0 where neither.
        value: The score of its value, of which the larger one is always better: that of its last epoch if pruned, the
            best so far if climbing; None where there is none, or none that is finite.
    """

    number: int
    params: Params
    standing: Standing
    n_epochs: int = 0
    value: float | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has a result."""
        return self.standing in ("complete", "pruned")


@dataclass(frozen=True)
class Known:
    """The cells that a suggestion rests on.

    Args:
        optuna: Version of the Optuna that made the suggestion.
        stage: Place among those of the search, from 0, of the stage whose space was sampled.
        done: Numbers of the cells with a result.
        climbing: Number, rung and score of each that had come to a rung.
        running: Numbers of the others that had a point.
    """

    optuna: str
    stage: int
    done: tuple[int, ...]
    climbing: tuple[tuple[int, int, float | None], ...]
    running: tuple[int, ...]

    @classmethod
    def of(cls, optuna: str, stage: int, cells: Iterable[KnownCell]) -> "Known":
        """From the cells as they stand."""
        ordered = sorted(cells, key=lambda cell: cell.number)
        return cls(
            optuna,
            stage,
            tuple(cell.number for cell in ordered if cell.is_done),
            tuple((cell.number, cell.n_epochs, cell.value) for cell in ordered if cell.standing == "climbing"),
            tuple(cell.number for cell in ordered if cell.standing == "running"),
        )

    def to_text(self) -> str:
        """As the ledger keeps it; of numbers in a row the first and the last."""
        content = {
            **vars(self),
            "done": _to_ranges(self.done),
            "running": _to_ranges(self.running),
        }
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: str) -> "Known":
        """From what `to_text` has written.

        Raises:
            ValueError: It is damaged.
        """
        try:
            content = json.loads(text)
            climbing = tuple((int(number), int(rung), value) for number, rung, value in content["climbing"])
            done, running = (_from_ranges(content[name]) for name in ("done", "running"))
            return cls(str(content["optuna"]), int(content["stage"]), done, climbing, running)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"what was known is {text!r:.80}") from error


def repeat_of(first: int) -> str:
    """What the point of a later repeat rests on, as the ledger keeps it: the number of the cell that is the first."""
    return json.dumps({"repeat_of": first})


def _to_ranges(numbers: tuple[int, ...]) -> str:
    """Ascending numbers in short: "0-4,7"."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, ends)) for ends in found)


def _from_ranges(text: str) -> tuple[int, ...]:
    numbers: list[int] = []
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return tuple(numbers)
