"""The programs that peers.py compares with: one grid, one budget, each written as its tool's own documentation shows.

    python benchmarks/peer_programs.py loop|optuna|keras-tuner|ray-tune JOB.json

Each trains every cell of the job's grid with stock Keras and early stopping, keeps the best epoch's weights, scores the
winner on the test images and writes `result.json` to the job's folder. Nothing of this project is imported.
"""

import itertools
import json
import os
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

Params = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A grid and a budget.

    Args:
        data: npz file with uint8 images and labels of three roles.
        folder: For everything that the program writes.
        grid: Values by name: hidden_size, dropout_rate, learning_rate.
        n_workers: Processes that train at once, where the tool has any.
    """

    data: str
    folder: str
    grid: dict[str, list[Any]]
    batch_size: int
    max_epochs: int
    patience: int
    seed: int
    n_workers: int

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def cells(self) -> list[Params]:
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


@dataclass(frozen=True)
class Data:
    """Images as float32 (n, 28, 28) in 0..1, labels as uint8 (n,)."""

    train: tuple[np.ndarray, np.ndarray]
    validation: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]


def load_data(job: Job) -> Data:
    with np.load(job.data) as arrays:
        roles = [
            (arrays[f"{role}_images"].astype(np.float32) / 255, arrays[f"{role}_labels"])
            for role in ("train", "validation", "test")
        ]
    return Data(*roles)


def create_model(hidden_size: int, dropout_rate: float, learning_rate: float) -> keras.Model:
    """The dense classifier; images are scaled before, once, which is the faster way for `fit`."""
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(hidden_size, activation="relu"),
            keras.layers.Dropout(dropout_rate),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(learning_rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class TrainingLog(keras.callbacks.Callback):
    """One line a finished training: its cell, its epochs, its seconds, its best val_accuracy."""

    def __init__(self, job: Job, params: Params) -> None:
        super().__init__()
        self._file = job.path / f"training-{uuid.uuid4().hex}.json"
        self._line: dict[str, Any] = {"params": params, "epochs": 0, "val_accuracy": 0.0}
        self._began = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._line["epochs"] += 1
        self._line["val_accuracy"] = max(self._line["val_accuracy"], float(logs["val_accuracy"]))

    def on_train_end(self, logs: Any = None) -> None:
        self._file.write_text(json.dumps(self._line | {"seconds": time.perf_counter() - self._began}))


def early_stopping(job: Job) -> keras.callbacks.Callback:
    return keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=job.patience, restore_best_weights=True)


def fit(job: Job, data: Data, params: Params, *callbacks: keras.callbacks.Callback) -> tuple[keras.Model, float]:
    """Train one cell by stock `fit`; the model and its val_accuracy."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(job.seed)
    model = create_model(**params)
    history = model.fit(
        *data.train,
        batch_size=job.batch_size,
        epochs=job.max_epochs,
        validation_data=data.validation,
        callbacks=[early_stopping(job), TrainingLog(job, params), *callbacks],
        verbose=0,
    )
    return model, max(history.history["val_accuracy"])


def use_one_thread() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def finish(job: Job, model: keras.Model, params: Params, val_accuracy: float, data: Data) -> None:
    """Score the winner, and say so."""
    _, test_accuracy = model.evaluate(*data.test, batch_size=1000, verbose=0)
    result = {"params": params, "val_accuracy": val_accuracy, "test_accuracy": float(test_accuracy)}
    (job.path / "result.json").write_text(json.dumps(result))


def load_winner(job: Job, params: Params, weights: Path) -> keras.Model:
    model = create_model(**params)
    model.load_weights(weights)
    return model


def run_loop(job: Job) -> None:
    """One cell after another, TensorFlow with its own choice of threads."""
    data, best_params, best = load_data(job), {}, -1.0
    weights = job.path / "best.weights.h5"
    for params in job.cells:
        model, val_accuracy = fit(job, data, params)
        if val_accuracy > best:
            best_params, best = params, val_accuracy
            model.save_weights(weights)
    finish(job, load_winner(job, best_params, weights), best_params, best, data)


def run_optuna(job: Job) -> None:
    """`study.optimize` with a GridSampler in processes that share a SQLite file."""
    import multiprocessing

    import optuna

    optuna.create_study(study_name="peer", storage=sqlite_url(job), direction="maximize")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=optimize, args=(job,)) for _ in range(job.n_workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(1)
    trial = optuna.load_study(study_name="peer", storage=sqlite_url(job)).best_trial
    model = load_winner(job, trial.params, job.path / f"{trial.number}.weights.h5")
    finish(job, model, trial.params, trial.value or 0.0, load_data(job))


def sqlite_url(job: Job) -> str:
    return f"sqlite:///{job.path / 'optuna.db'}"


def optimize(job: Job) -> None:
    """One process: take points until the grid is over."""
    import optuna

    use_one_thread()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = load_data(job)

    def objective(trial: optuna.Trial) -> float:
        params = {name: trial.suggest_categorical(name, values) for name, values in job.grid.items()}
        model, val_accuracy = fit(job, data, params)
        model.save_weights(job.path / f"{trial.number}.weights.h5")
        return val_accuracy

    sampler = optuna.samplers.GridSampler(job.grid, seed=job.seed)
    optuna.load_study(study_name="peer", storage=sqlite_url(job), sampler=sampler).optimize(objective)


def run_keras_tuner(job: Job) -> None:
    """`GridSearch`, one trial after another, TensorFlow with its own choice of threads."""
    import keras_tuner

    class Dense(keras_tuner.HyperModel):  # type: ignore[misc]
        def build(self, hp: Any) -> keras.Model:
            return create_model(**{name: hp.Choice(name, values) for name, values in job.grid.items()})

        def fit(self, hp: Any, model: keras.Model, *args: Any, callbacks: list[Any], **kwargs: Any) -> Any:
            log = TrainingLog(job, {name: hp.get(name) for name in job.grid})
            return model.fit(*args, callbacks=[*callbacks, log], **kwargs)

    data = load_data(job)
    tuner = keras_tuner.GridSearch(
        Dense(), objective="val_accuracy", seed=job.seed, directory=job.folder, project_name="tuner"
    )
    tuner.search(
        *data.train,
        batch_size=job.batch_size,
        epochs=job.max_epochs,
        validation_data=data.validation,
        callbacks=[early_stopping(job)],
        verbose=0,
    )
    (best,) = tuner.oracle.get_best_trials(1)
    (model,) = tuner.get_best_models(1)
    finish(job, model, {name: best.hyperparameters.get(name) for name in job.grid}, best.score, data)


def run_ray_tune(job: Job) -> None:
    """`grid_search` with one core a trial."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0"}
    import ray
    from ray import tune

    ray.init(num_cpus=job.n_workers, include_dashboard=False, log_to_driver=False)
    data = load_data(job)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(ray_trial, job=job, data=data), {"cpu": 1}),
        param_space={name: tune.grid_search(values) for name, values in job.grid.items()},
        tune_config=tune.TuneConfig(metric="best", mode="max"),
        run_config=tune.RunConfig(name="tune", storage_path=job.folder, verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    best = results.get_best_result()
    model = load_winner(job, best.config, Path(best.metrics["weights"]))
    finish(job, model, best.config, best.metrics["best"], data)
    ray.shutdown()


class RayReport(keras.callbacks.Callback):
    """Tells Ray Tune of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        from ray import tune

        tune.report({"val_accuracy": float(logs["val_accuracy"]), "best": 0.0})


def ray_trial(config: Params, job: Job, data: Data) -> None:
    """One trial: an epoch is a report, as schedulers want it."""
    from ray import tune

    use_one_thread()
    model, val_accuracy = fit(job, data, config, RayReport())
    weights = job.path / f"{uuid.uuid4().hex}.weights.h5"
    model.save_weights(weights)
    tune.report({"val_accuracy": val_accuracy, "best": val_accuracy, "weights": str(weights)})


PROGRAMS = {"loop": run_loop, "optuna": run_optuna, "keras-tuner": run_keras_tuner, "ray-tune": run_ray_tune}


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](Job(**json.loads(Path(sys.argv[2]).read_text())))
