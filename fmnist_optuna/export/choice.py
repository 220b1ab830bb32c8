"""How the exported weights were chosen, in the words of a card."""

from fmnist_optuna.export.compared import name_compared
from fmnist_optuna.export.facts import Facts
from fmnist_optuna.results.confirmation import Confirmation
from fmnist_optuna.results.cross_validation import CrossValidation
from fmnist_optuna.search.cell import TRAINING_SEED
from fmnist_optuna.wording import count


def describe_choice(facts: Facts) -> str:
    """By what, of how many, and what was trained for it."""
    source, cells = facts.source, count(facts.n_cells, "cell")
    metric = name_compared(facts.record.metric)
    if source.folds is not None:
        return _how_chosen_by_folds(facts, source.folds, metric)
    if source.confirmation is None:
        if source.repeats is not None:
            return _how_chosen_by_means(facts, len(source.repeats.values), metric)
        confirmed = "not confirmed over seeds"
        if source.is_passed_over:
            confirmed = "trained again over fresh seeds, which chose another"
        how = "asked for by its number, whatever was chosen" if source.is_asked_for else f"by {metric}"
        return f"One of {cells} of the {facts.record.spec.searched}, {how}; {confirmed}."
    chosen, training = _how_confirmed(facts, source.confirmation, cells, metric)
    if source.all_data is None and not source.is_ensemble:
        return f"{chosen}, in {training}."
    parts = [f"{chosen}."]
    if source.all_data is not None:
        parts.append(
            f"Its confirmed seeds were then trained once more, on training and validation {facts.info.noun}s, for "
            f"{count(source.all_data.n_epochs, 'epoch')}, a number that the confirmation had fixed; the weights are "
            "those of the last epoch."
        )
    which = f"first {len(source.attempts)} of these seeds" if source.is_ensemble else "first of these seeds"
    parts.append(f"Exported {'are' if source.is_ensemble else 'is'} the {which}, whatever the test set says of them.")
    return " ".join(parts)


def _how_confirmed(facts: Facts, confirmation: Confirmation, cells: str, metric: str) -> tuple[str, str]:
    """What fresh seeds chose, a sentence without its full stop; and which training of it the search has."""
    training, repeats = "its original training", facts.source.repeats
    if repeats is not None:
        n_repeats = len(repeats.values)
        cells, training = count(facts.n_cells // n_repeats, "point"), "the first of its original trainings"
        metric = f"the mean {metric} of {n_repeats} repeats"
    if len(confirmation.candidates) == 1 and not confirmation.n_left_out:
        return (
            f"The best of {cells} by {metric}, trained again over {confirmation.chosen.n_seeds} fresh seeds",
            training,
        )
    among = f", {confirmation.chosen_among}" if confirmation.chosen_among else ""
    return (
        f"The best of {cells} by {metric} were trained again over {confirmation.described_seeds}. This is the smallest "
        f"model whose mean lies within one standard error of the best mean{among}"
    ), training


def _how_chosen_by_means(facts: Facts, n_repeats: int, metric: str) -> str:
    how = f", by the mean {metric} of these; exported is the first of them, whatever the others had"
    if facts.source.is_asked_for:
        seed = int(facts.attempt.params[TRAINING_SEED])
        how = (
            f"; exported is a training that was asked for by its number, whatever was chosen, with training_seed {seed}"
        )
    others = " Fresh seeds chose another point." if facts.source.is_passed_over else ""
    return (
        f"One of {count(facts.n_cells // n_repeats, 'point')} of the {facts.record.spec.searched}, each trained over "
        f"{n_repeats} seeds{how}.{others}"
    )


def _how_chosen_by_folds(facts: Facts, folds: CrossValidation, metric: str) -> str:
    n_points = facts.n_cells // len(folds.values.values)
    return (
        f"The best of {count(n_points, 'point')} of the {facts.record.spec.searched}, by the mean {metric} of "
        f"{folds.described}. It was then trained once more, on all training {facts.info.noun}s, for "
        f"{count(facts.attempt.n_epochs, 'epoch')}, a number that the folds had fixed; the weights are those of the "
        "last epoch."
    )
