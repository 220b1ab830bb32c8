"""`spec example` and `spec check`: study files."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fmnist_optuna.cli.answers import print_json
from fmnist_optuna.cli.commands import command, make_group
from fmnist_optuna.cli.options import Common, DataDir, JsonFlag, read_study_file, start_server_early
from fmnist_optuna.cli.streams import say
from fmnist_optuna.wording import count

group = make_group("Study files.")

EXAMPLE = """\
# A study file. Every table is optional; what stands here are the defaults.
name = "fashion-mnist"

[data]
source = "auto"          # "fashion-mnist", "synthetic", or "auto": synthetic garments only if the rest cannot be had;
#                          or your own: "folder:DIR", "npz:FILE", "idx:DIR", "keras:NAME", "package.module:function"
n_validation = 12000     # of the 60,000 training images, stratified by label; the 10,000 test images are kept out
# folds = 5              # in the place of n_validation: each image validates once, and the best mean over folds wins
split_seed = 0
# size = [64, 64]        # of pictures in "folder:DIR", which else must be of one size
# test_share = 0.15      # of your own data that has no test: the share of each class that is kept out as one

[model]
architecture = "dense"   # "conv", "resnet", or "package.module:function", which returns a compiled keras.Model for
#                          such images
# n_hidden_layers = 1    # any other parameter of the function, fixed for the whole study

[grid]                   # every combination is one cell; parameters of the architecture, batch_size, training_seed
hidden_size = [64, 128, 256]
dropout_rate = [0.2, 0.3, 0.5]
learning_rate = [0.01, 0.001, 0.0001]

# [search]
# repeats = 3            # every point over so many seeds, each a cell of its own; the best mean wins

# In place of [grid]: so many points of a space.
# [search]
# sampler = "random"     # or "qmc" (quasi-random), "tpe" (learns from results)
# n_trials = 40
# seed = 0
#
# [space]
# hidden_size = {low = 32, high = 512, step = 32}
# learning_rate = {low = 1e-4, high = 1e-1, log = true}
# dropout_rate = {low = 0.0, high = 0.5}
# optimizer = ["adam", "sgd"]
# momentum = {low = 0.5, high = 0.99, when = {optimizer = "sgd"}}
#
# [[enqueue]]            # points to try first; what they leave open is drawn
# learning_rate = 1e-3

[training]
batch_size = 32
max_epochs = 30
patience = 5             # epochs without a better value of the objective before a trial stops
keep_weights = "best"    # of the epoch with the best value; "last": every trial goes to its end and keeps those
seed = 0
checkpoint_seconds = 60  # after so long, at an epoch's end, a training is kept: a later attempt goes on from there
callbacks = []           # "package.module:function", each returns a keras.callbacks.Callback or a list of them; it may
#                          take trial (number), params (dict) and folder (Path, where alone its callbacks may write)
threads = 1              # of TensorFlow, in each worker; the numbers depend on it
class_weight = "none"    # "balanced": losses count by n / (n_classes * images of the class); in training only
teacher = ""             # another finished study, whose winner's answers are learnt from beside the labels
# Each of these, and of [augment], may be a parameter of [grid] as well; as written they do nothing.
optimizer = "compiled"   # "adam" and "sgd" (Nesterov, with `momentum`) take the place of what the architecture compiles
schedule = "constant"    # or "cosine", "one-cycle", to learning_rate_floor after warmup_epochs
weight_decay = 0.0       # decoupled; of matrices and kernels
label_smoothing = 0.0
ema = 0.0                # a running average of the weights is validated and kept, such as 0.999
# teacher_weight = 0.9   # with a teacher: the share of its answers in the loss
# teacher_temperature = 1.0

[augment]                # of training images alone, inside of the compiled epoch
horizontal_flip = "none" # or "random", "alternating"
shift = 0                # pixels
erase = 0                # pixels, side of a black square
mixup = 0.0

[objective]              # what cells are compared by: when a training stops, which are cut, which one wins
metric = "val_accuracy"  # "val_loss", or "val_" and the name of a metric that the architecture compiles
# direction = "maximize" # or "minimize", where the metric's name does not say which way is better

[pruner]                 # without this table nothing is cut where the learning rate has a schedule
name = "ladder"          # "median" cuts by the median of other trials; "none" trains every cell to its end
first_rung = 2           # epochs at which all cells are compared first, then at twice as many, and so on
kappa = 1.0              # how often the gain of the last doubling is trusted to come again
margin = 1.0             # how many standard errors of the best value a cell may then lack
keep = 3                 # how many of the best at a rung go on anyway
# n_startup_trials = 6   # of "median", in place of the four above: complete trials before anything is cut
# n_warmup_steps = 0
# interval_steps = 1
# n_min_trials = 1

[confirm]
top = 3
seeds = 5
flip = false             # true: answers are averaged over an image and its mirror image
"""


@command(group, "example")
def example(common: Common) -> None:
    """Print a commented study file with the defaults."""
    print(EXAMPLE, end="")
    say("Next: fmnist-optuna spec example > my_study.toml, edit it, fmnist-optuna run my_study.toml")


@command(group, "check")
def check(
    common: Common,
    study_file: Annotated[Path, typer.Argument(metavar="FILE", help="Study file.")],
    data_dir: DataDir = None,
    as_json: JsonFlag = False,
) -> None:
    """Check a study file, its architecture and its callbacks, by training the smallest cell twice for a few steps.

    What would fail every trial fails here, with the same words; larger cells are not tried.
    """
    spec = read_study_file(study_file)
    start_server_early()

    # These load Optuna, SQLAlchemy and pydantic.
    from fmnist_optuna.running.preparation import check_study
    from fmnist_optuna.spec.idle_options import describe_idle

    bound = check_study(spec, data_dir)
    if as_json:
        print_json({"ok": True, "study": bound.name, "cells": bound.n_cells, "spec": bound.model_dump(mode="json")})
        return
    how = "" if bound.search.is_grid else f", {bound.search.sampler} sampler"
    how += f", {bound.search.repeats} repeats of each point" if bound.search.repeats > 1 else ""
    how += f", {bound.data.folds} folds of each" if bound.data.folds else ""
    cells = count(bound.n_cells, "cell")
    print(f"{study_file}: ok, study {bound.name}, {cells} of {bound.model.architecture}{how}")
    for note in (bound.objective_note, bound.pruner_note, describe_idle(bound)):
        if note is not None:
            say(f"Note: {note}.")
    file = shlex.quote(str(study_file))
    say(f"Next: fmnist-optuna run {file}")
