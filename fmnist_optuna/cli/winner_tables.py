"""The winner for people: its scores, its classes, and what fresh seeds say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_optuna.cli.console import describe_study, describe_teacher, make_table, out, print_params
from fmnist_optuna.cli.parameter_columns import Column, ParameterOrder, make_trials_table, print_trials_table
from fmnist_optuna.spec.study_names import command_of
from fmnist_optuna.wording import WITH_FLIPS, WITHOUT_FLIPS, count, format_interval, format_percent

if TYPE_CHECKING:
    from fmnist_optuna.confirming import ConfirmedStudy
    from fmnist_optuna.ledger.records import CellCounts
    from fmnist_optuna.results.all_data import AllData
    from fmnist_optuna.results.confirmation import Confirmation
    from fmnist_optuna.results.cross_validation import CrossValidation
    from fmnist_optuna.results.ensemble import Ensemble
    from fmnist_optuna.results.evaluation import Evaluation
    from fmnist_optuna.results.seeds import OpenedSeeds, Sample
    from fmnist_optuna.results.unsettled import Unsettled
    from fmnist_optuna.results.winner import Winner
    from fmnist_optuna.search.metric import Metric
    from fmnist_optuna.study.records import StudyRecord


def print_winner(record: StudyRecord, winner: Winner, counts: CellCounts) -> None:
    """The winner, its scores and its classes."""
    noun = record.info.noun
    out.print(f"Winner of {describe_study(record)}: {_name_trial(winner, noun)}", soft_wrap=True)
    print_params(winner.params)
    for line in describe_teacher(record, winner.params):
        out.print(line, soft_wrap=True)
    _print_validation(winner, _describe_rivals(record, winner, counts))
    _print_sample("mean of repeats", winner.repeats)
    if winner.folds is not None:
        _print_folds(winner.folds, noun)
    if winner.evaluation is None:
        out.print(f"  test accuracy        {_describe_unopened(record)}", soft_wrap=True)
    else:
        _print_tested(winner.evaluation, winner.metric, count(winner.evaluation.n_images, noun))
    if winner.confirmation is not None:
        print_confirmed(winner.confirmation)
        print_what_follows(record, winner)
    elif winner.unsettled is not None:
        _print_unsettled(winner.unsettled)
    print_unmeasured(record, winner)
    if winner.n_openings:
        _print_openings(winner)
    if winner.evaluation is not None:
        out.print()
        print_classes(winner.evaluation, f"{noun}s")


def _describe_unopened(record: StudyRecord) -> str:
    """What opens the test set for a winner that was not scored; of the best seed of a confirmation nothing may."""
    command = f"`fmnist-optuna {command_of(record.name)}`"
    if record.is_search:
        return f"not opened yet: the command that began the study does,\n{'':23}{command}, when all cells are done"
    return f"not opened: {command} scores the seeds of the cell that it chooses"


def _print_tested(evaluation: Evaluation, metric: Metric, n_tested: str) -> None:
    """What the test images say of the stored weights, and of their answers averaged with those to mirror images."""
    has_flips = evaluation.flip_accuracy is not None
    if not metric.is_accuracy:
        alone = f", the net alone, {WITHOUT_FLIPS}" if has_flips else ""
        out.print(
            f"  {_named('test', metric)} {metric.format(evaluation.objective)}   {n_tested}{alone}", soft_wrap=True
        )
        if evaluation.flip_objective is not None:
            out.print(f"  {'  with flips':<20} {metric.format(evaluation.flip_objective)}   {WITH_FLIPS}")
    scored = f"95 % interval {format_interval(evaluation.interval)}, {n_tested}"
    out.print(f"  test accuracy        {format_percent(evaluation.accuracy)}   {scored}")
    if has_flips:
        out.print(f"  test, with flips     {format_percent(evaluation.flip_accuracy)}   {WITH_FLIPS}")


def print_unmeasured(record: StudyRecord, winner: Winner) -> None:
    """Which weights had been opened before the study asked for mirror images: a later opening does not measure them."""
    if not record.spec.confirm.flip:
        return
    seeds = {"confirmed seeds": winner.confirmation, "seeds on all data": winner.all_data}
    names = [] if winner.evaluation is None or winner.evaluation.flip_accuracy is not None else ["stored weights"]
    names += [name for name, each in seeds.items() if each and each.test is not None and each.flipped is None]
    names += ["an ensemble"] if any(each.evaluation.flip_accuracy is None for each in winner.ensembles) else []
    if names:
        why = "not measured with flips, as these weights were opened before"
        out.print(f"  {', '.join(names)}: {why}", soft_wrap=True)


def _describe_rivals(record: StudyRecord, winner: Winner, counts: CellCounts) -> str:
    """Among how many it was chosen; where points have several cells, among how many points, and by their means."""
    n_each, n_cut = record.spec.repeats.n_cells, counts.cut
    how = "best of" if winner.repeats is None else "first repeat of the best of"
    among = count(counts.total, "cell") if n_cut else count(counts.complete, "complete cell")
    fallen = f"{n_cut // n_each} cut at rungs" if n_cut else f"{counts.pruned} pruned"  # all cells of a point are cut
    if winner.confirmation is not None:
        how = "confirmed;"
    if n_each > 1:
        among = count(counts.total // n_each, "point")
        fallen = f"{count(counts.pruned, 'cell')} pruned" if counts.pruned and not n_cut else fallen
    n_left = counts.total - counts.done - counts.failed
    return f"{how} {among}, {fallen}{f', {n_left} to come' if n_left else ''}"


def _name_trial(winner: Winner, noun: str) -> str:
    """Whose weights are tested and exported."""
    folds = winner.folds
    if folds is None:
        return f"trial {winner.trial}"
    return f"not trained on all {noun}s yet" if folds.trained is None else f"trial {winner.trial} of {folds.study}"


def _print_folds(folds: CrossValidation, noun: str) -> None:
    """Over what the mean is, and what was trained for it."""
    sd = folds.values.metric.format_distance(folds.values.sd)
    out.print(f"  {'  a mean of':<20} {folds.described}, sd {sd}", soft_wrap=True)
    if folds.trained is not None:
        epochs = count(folds.trained.n_epochs, "epoch")
        out.print(f"  {'then trained':<20} on all training {noun}s for {epochs}, and tested once")


def _print_validation(winner: Winner, among: str) -> None:
    """The value that the winner was chosen by, and the accuracy beside another metric."""
    accuracy = f"  validation accuracy  {format_percent(winner.val_accuracy)}"
    if winner.metric.is_accuracy:
        out.print(f"{accuracy}   {among}")
        return
    out.print(f"  {_named('validation', winner.metric)} {winner.metric.format(winner.value)}   {among}")
    out.print(accuracy)


def _named(images: str, metric: Metric) -> str:
    """A metric of some images, as wide as the names of others are."""
    return f"{f'{images} {metric.name_in_logs}':<20}"


def print_confirmed(confirmation: Confirmation) -> None:
    """The chosen cell's means over fresh seeds; of another metric than the accuracy in lines of their own."""
    metric = confirmation.metric
    if not metric.is_accuracy:
        _print_sample(f"confirmed val {metric.name_in_logs}", confirmation.chosen.val)
        _print_objective(f"confirmed test {metric.name_in_logs}", confirmation)
    _print_sample("confirmed validation", confirmation.chosen.val_accuracy)
    _print_sample("confirmed test", confirmation.test)
    _print_sample("confirmed with flips", confirmation.flipped)


def _print_objective(name: str, opened: OpenedSeeds) -> None:
    """Another metric than the accuracy on the test images, over seeds."""
    _print_sample(name, opened.test_objective, "" if opened.flipped is None else f", {WITHOUT_FLIPS}")
    _print_sample("  with flips", opened.flipped_objective)


def _print_sample(name: str, sample: Sample | None, note: str = "") -> None:
    if sample is not None:
        interval, n_seeds = sample.metric.format_interval(sample.interval), len(sample.values)
        scored = f"95 % interval {interval}, mean of {n_seeds} seeds{note}"
        out.print(f"  {name:<20} {sample.metric.format(sample.mean)}   {scored}", soft_wrap=True)


def print_what_follows(record: StudyRecord, winner: Winner) -> None:
    """What was trained on all data after the confirmation, and what seeds score together."""
    again = f"`fmnist-optuna confirm {record.name} --all-data`"
    if winner.all_data is not None:
        _print_all_data(winner.all_data, again, record.info.noun)
    elif winner.unsettled is not None:
        _print_unsettled(winner.unsettled)
    for ensemble in winner.ensembles:
        _print_ensemble(ensemble)


def _print_unsettled(unsettled: Unsettled) -> None:
    out.print(f"  {unsettled.what:<20} {unsettled.reason};\n{'':23}{unsettled.advice}", soft_wrap=True)


def _print_all_data(all_data: AllData, again: str, noun: str) -> None:
    """Its scores, or the command that scores it."""
    if all_data.test is None:
        out.print(f"  all data, test       not opened yet: {again} does", soft_wrap=True)
        return
    if not all_data.metric.is_accuracy:
        _print_objective(f"all data, {all_data.metric.name_in_logs}", all_data)
    _print_sample("all data, test", all_data.test)
    _print_sample("all data, with flips", all_data.flipped)
    epochs = count(all_data.n_epochs, "epoch")
    out.print(f"{'':22} each seed anew, on validation {noun}s too, {epochs}")


def _print_ensemble(ensemble: Ensemble) -> None:
    evaluation, name = ensemble.evaluation, "ensemble on all data" if ensemble.is_on_all_data else "ensemble, test"
    scored = f"95 % interval {format_interval(evaluation.interval)}, {ensemble.n_members} seeds together"
    out.print(f"  {name:<20} {format_percent(evaluation.accuracy)}   {scored}")
    if evaluation.flip_accuracy is not None:
        out.print(f"  {'  with flips':<20} {format_percent(evaluation.flip_accuracy)}")


def print_confirmation(record: StudyRecord, confirmed: ConfirmedStudy, order: ParameterOrder | None = None) -> None:
    """All cells that were compared, the chosen one's scores, and how much the selection flattered.

    Args:
        order: Of the parameters; that of the study file where it is left out.
    """
    confirmation, winner = confirmed.confirmation, confirmed.winner
    cells, left_out = count(len(confirmation.candidates), "cell"), confirmation.n_left_out
    out.print(f"Confirmation of {describe_study(record)}: {cells}, {confirmation.described_seeds}")
    print_candidates(confirmation, record, order or ParameterOrder(list(record.spec.axes)))
    if left_out:
        out.print(f"{count(left_out, 'cell')} left out: fewer than two of the seeds have a result")
    out.print()
    is_only = len(confirmation.candidates) == 1
    why = "the only one compared" if is_only else "the smallest model within one standard error of the best"
    among = f",\n  {confirmation.chosen_among}" if confirmation.chosen_among else ""
    out.print(f"* Chosen: trial {winner.trial}, {why}{among}")
    print_params(winner.params)
    for line in describe_teacher(record, winner.params):
        out.print(line, soft_wrap=True)
    print_confirmed(confirmation)
    print_what_follows(record, winner)
    if winner.evaluation is not None:
        score = f"val {format_percent(winner.val_accuracy)}, test {format_percent(winner.evaluation.accuracy)}"
        flipped = winner.evaluation.flip_accuracy
        both = "" if flipped is None else f", with flips {format_percent(flipped)}"
        out.print(f"  its stored weights   {score}{both}", soft_wrap=True)
    print_unmeasured(record, winner)
    _print_optimism(confirmed, record)
    _print_openings(winner)


def _print_openings(winner: Winner) -> None:
    """How often the test set was looked at, for this study and all that follows from it."""
    out.print(f"  test set opened      {'once' if winner.n_openings == 1 else f'{winner.n_openings:,} times'}")


def print_candidates(confirmation: Confirmation, record: StudyRecord, order: ParameterOrder) -> None:
    """One row for each cell that was compared, the chosen one with a star."""
    metric, candidates = confirmation.metric, confirmation.candidates
    marks = [
        f"{'*' if each is confirmation.chosen else ''}{f' {each.n_missing} missing' if each.n_missing else ''}".strip()
        for each in candidates
    ]
    before = [Column("trial", [str(each.original.number) for each in candidates])]
    seeds = [] if confirmation.has_equal_seeds else [Column("seeds", [str(each.n_seeds) for each in candidates])]
    after = [
        *seeds,
        Column("params", [f"{each.n_parameters:,}" for each in candidates]),
        Column(record.value_name, [metric.format(each.val.mean) for each in candidates]),
        Column("sd", [metric.format_distance(each.val.sd) for each in candidates]),
        Column("95 % interval", [metric.format_interval(each.val.interval) for each in candidates]),
        Column("", marks, is_right=False),
    ]
    table, choice = make_trials_table(before, [each.params for each in candidates], after, order)
    print_trials_table(table, choice, order)


def _print_optimism(confirmed: ConfirmedStudy, record: StudyRecord) -> None:
    """How much better the validation images say it is than the test images, in what the study compares by."""
    selected, mean = confirmed.selected_optimism, confirmed.confirmed_optimism
    if selected is None or mean is None:
        return
    best = f"the trial with the best {record.value_in_full}"
    if confirmed.selected.repeats is not None:
        best = f"the first repeat of the best mean {record.value_in_full}"
    if record.metric.is_accuracy:
        out.print(f"  val minus test       {100 * selected:+.2f} points for {best},")
        out.print(f"                       {100 * mean:+.2f} points for the confirmed mean")
    else:
        out.print(f"  val minus test       {selected:+.4f} {record.metric.name_in_logs} for {best},", soft_wrap=True)
        out.print(f"                       {mean:+.4f} for the confirmed mean")


def print_classes(evaluation: Evaluation, examples: str) -> None:
    """Recall and precision of each class on the test images; of many classes, of those that are found least often.

    Args:
        examples: What the data calls its images.
    """
    if evaluation.shown_note:
        out.print(evaluation.shown_note)
    if evaluation.flip_accuracy is not None:
        out.print(f"Classes, of the answers {WITHOUT_FLIPS}:")
    table = make_table("class", examples, "recall", "precision", right=(examples, "recall", "precision"))
    for result in evaluation.shown_classes:
        recall, precision = format_percent(result.recall), format_percent(result.precision)
        table.add_row(result.label, f"{result.n_images:,}", recall, precision)
    out.print(table)
