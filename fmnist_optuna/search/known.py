"""What a search knew when a point was suggested: of which cells, and of those that still trained their values of then.

What is done never changes, so its cells are named and no more. Where a worker suggests one point after another, what
it knew is kept as what is new since the time before.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from fmnist_optuna.search.cell import Params

Standing = Literal["complete", "pruned", "climbing", "running"]
# Of 2,000 cells that come to a first rung, all texts together take 52 MB written in full, and 1.3 to 1.5 MB with so
# many in a row that hold changes alone; the last of a row is read in 0.01 s (measured 2026-11, one worker and eight).
MOST_CHANGES = 50
N_REMEMBERED = 100  # more than there are workers side by side, whose texts are based on each one's own


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


Climbing = tuple[int, int, float | None]


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
    climbing: tuple[Climbing, ...]
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

    def to_text(self, base: "Base | None" = None) -> str:
        """As the ledger keeps it; of numbers in a row the first and the last.

        Args:
            base: Of which only the changes are written; None for all.
        """
        content = {
            **vars(self),
            "done": _to_ranges(self.done),
            "running": _to_ranges(self.running),
        }
        if base is not None:
            old, numbers = set(base.known.climbing), {number for number, _, _ in self.climbing}
            content["climbing"] = [entry for entry in self.climbing if entry not in old]
            content["base"] = base.number
            content["gone"] = _to_ranges(tuple(n for n, _, _ in base.known.climbing if n not in numbers))
        return json.dumps(content)

    @classmethod
    def from_text(cls, text: str, read_base: Callable[[int], "Known"]) -> "Known":
        """From what `to_text` has written.

        Args:
            read_base: What was known when the point of another cell was suggested, by its number; it may raise a
                ValueError.

        Raises:
            ValueError: It is damaged, or what it is based on.
        """
        try:
            content = json.loads(text)
            entries = [(int(number), int(rung), value) for number, rung, value in content["climbing"]]
            done, running = (_from_ranges(content[name]) for name in ("done", "running"))
            if "base" in content:
                entries = _change(read_base(int(content["base"])).climbing, _from_ranges(content["gone"]), entries)
            return cls(str(content["optuna"]), int(content["stage"]), done, tuple(entries), running)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"what was known is {text!r:.80}") from error


@dataclass(frozen=True)
class Base:
    """What was known at an earlier suggestion of the same worker.

    Args:
        number: Of the cell that it was for.
        n_changes: How many others this one is based on, one on the other.
    """

    number: int
    known: Known
    n_changes: int = 0

    @property
    def is_of_use(self) -> bool:
        """Whether what rests on it is shorter for that, and soon read."""
        return bool(self.known.climbing) and self.n_changes < MOST_CHANGES


class KnownTexts:
    """What each point of a search was suggested by, read from the texts that the ledger keeps.

    Args:
        texts: By the number of the cell; None where nothing was known, as nothing was suggested.
    """

    def __init__(self, texts: Mapping[int, str | None]) -> None:
        self._texts = texts
        self._read: dict[int, Known] = {}  # the last ones, on which the next ones may be based

    def read(self, number: int) -> Known:
        """What was known when the point of a cell was suggested.

        Raises:
            ValueError: It is not there, or it is damaged, or what it is based on.
        """
        return self._find(number, 0)

    def _find(self, number: int, n_changes: int) -> Known:
        if number in self._read:
            return self._read[number]
        text = self._texts.get(number)
        if text is None or n_changes > MOST_CHANGES:
            raise ValueError(f"of cell {number} nothing says what was known")
        known = Known.from_text(text, lambda base: self._find(base, n_changes + 1))
        self._read[number] = known
        if len(self._read) > N_REMEMBERED:
            del self._read[next(iter(self._read))]
        return known


def _change(base: Iterable[Climbing], gone: Iterable[int], entries: Iterable[Climbing]) -> list[Climbing]:
    """The cells of a base, but for those that are gone, with others or with other values, in the order of numbers."""
    found = {entry[0]: entry for entry in base}
    for number in gone:
        found.pop(number, None)
    found |= {entry[0]: entry for entry in entries}
    return [found[number] for number in sorted(found)]


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
