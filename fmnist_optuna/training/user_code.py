"""What a study names of the user's: its architecture and its callbacks, begun anew for every model.

Every model of a cell, whether it is trained, scored, exported or repeated, begins here, so all begin from one state of
Keras, TensorFlow, NumPy and the user's modules: the one that the import of those modules leaves in a fresh process.
"""

import functools
import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from fmnist_optuna.data.dataset import DatasetInfo
from fmnist_optuna.errors import SpecError
from fmnist_optuna.spec.binding import bind_parameters, check_sides
from fmnist_optuna.spec.study_spec import StudySpec
from fmnist_optuna.training.architecture import Architecture, load_architecture
from fmnist_optuna.training.random_states import RandomStates, set_seeds
from fmnist_optuna.user_modules.execution import USER_MODULES
from fmnist_optuna.user_modules.framework_settings import FrameworkSettings, clear_session, read_session, set_session
from fmnist_optuna.user_modules.functions import load_function
from fmnist_optuna.user_modules.keras_patches import KerasCode

SLOW_IMPORT_SECONDS = 1.0  # of the user's modules, for every model; a trial of the default study takes 20

CallbackFunctions = dict[str, Callable[..., object]]


@dataclass(frozen=True)
class Surroundings:
    """What a paused training leaves in the process and must find again: everything that `UserCode.begin` changes.

    Args:
        random: Random states.
        session: Of Keras, with its global seed generator.
        settings: Of Keras, TensorFlow and NumPy.
        keras: Keras' functions, patched or not; None where no code is the user's.
        modules: The user's, as they were executed for this training.
        folder: The current one.
        environment: Variables of the process.
    """

    random: RandomStates
    session: dict[str, object]
    settings: FrameworkSettings
    keras: KerasCode | None
    modules: dict[str, ModuleType]
    folder: Path
    environment: dict[str, str]


class UserCode:
    """The architecture and the callback functions of a study. Importing them is the first thing it does.

    Args:
        spec: The study's specification.
        info: Of the data that the models are for.

    Attributes:
        is_users: Whether any of it is the user's own; the built-in architecture without callbacks is ours.

    Raises:
        SpecError: A module or function does not exist, or an import fails.
    """

    def __init__(self, spec: StudySpec, info: DatasetInfo) -> None:
        self.spec = spec
        self.info = info
        self._folder = Path.cwd()
        self._environment = dict(os.environ)
        USER_MODULES.forget()
        clear_session()
        _pristine_settings().set_back()
        _pristine_settings().unregister()
        self.is_users = spec.has_own_code
        keras_code = _pristine_keras() if self.is_users else None  # takes 0.05 s a process (measured 2026-11)
        if keras_code is not None:
            keras_code.set_back()
        self.architecture, self.callbacks = self._load(spec.training.seed)  # one seed for all workers of a study
        modules = USER_MODULES.names()
        self._settings = FrameworkSettings.read(without=modules)
        self._keras = None if keras_code is None else KerasCode().without(modules, keras_code)

    def bind(self) -> StudySpec:
        """Check the specification against what its architecture accepts; from here on its values have their types.

        Raises:
            SpecError: An unknown parameter, a missing one, a value of the wrong type, or pictures that are too small.
        """
        architecture = self.architecture
        self.spec = bind_parameters(self.spec, architecture.parameters, architecture.required, architecture.variable)
        if self.info.is_of_pictures:
            height, width = self.info.image_shape[:2]
            check_sides(self.spec, height, width, architecture.parameters)
        return self.spec

    def begin(self, seed: int) -> None:
        """Start from the state that a fresh process has after the import, with the modules imported from this seed.

        Nothing that an earlier model's function or callbacks changed is left: settings of Keras, TensorFlow and NumPy,
        random generators, the current folder, variables of the environment, patches of Keras, and variables of the
        user's modules, which are executed anew.

        Args:
            seed: Of the cell; set before the modules are executed, and again after it.

        Raises:
            SpecError: A module of the user's can be imported only once in a process.
        """
        USER_MODULES.forget()
        clear_session(self._keeps_compiled())
        self._settings.set_back()  # those of installed packages too, which set theirs only once
        self._settings.unregister()
        if self._keras is not None:
            self._keras.set_back()
        self._set_back_process()
        try:
            self.architecture, self.callbacks = self._load(seed)
        except SpecError as error:
            raise SpecError(
                f"{str(error).rstrip('.')}, in its second import; for each trial a study's modules are executed anew, "
                "so that no trial meets what another left in them."
            ) from error
        self._settings.set_back()
        self.set_seeds(seed)

    def set_seeds(self, seed: int) -> None:
        """Seed all random generators of the process."""
        set_seeds(seed, self._keeps_compiled())

    def leave(self) -> Surroundings:
        """What the training that began last needs to find again, once others have begun and ended here."""
        return Surroundings(
            random=RandomStates.read(),
            session=read_session(),
            settings=FrameworkSettings.read(),
            keras=None if self._keras is None else KerasCode(),
            modules=USER_MODULES.imported(),
            folder=Path.cwd(),
            environment=dict(os.environ),
        )

    def enter(self, surroundings: Surroundings) -> None:
        """Let a training that was left find all as it was then; what stands there now is no more found."""
        USER_MODULES.put_back(surroundings.modules)
        set_session(surroundings.session)
        surroundings.settings.set_back()
        surroundings.settings.unregister()
        if surroundings.keras is not None:
            surroundings.keras.set_back()
        set_back_process(surroundings.folder, surroundings.environment)
        surroundings.random.set_back()

    def describe_slow_import(self) -> str | None:
        """A warning of modules that are slow to execute, as every model needs it anew; None where they are fast."""
        if self._import_seconds < SLOW_IMPORT_SECONDS:
            return None
        named = (self.spec.model.architecture, *self.spec.training.callbacks)
        modules = sorted({module for module, is_module, _ in (name.partition(":") for name in named) if is_module})
        return (
            f"importing {', '.join(modules)} takes {self._import_seconds:.1f} s, again for every trial, as a study's "
            "own modules are executed anew; an installed package is imported once: move there what takes long."
        )

    def end(self, keep_models: bool = False) -> None:
        """Keep nothing of the model that began last, and have the settings as they were before it.

        Args:
            keep_models: Clear nothing away: the model was left, and somebody has it still. What it and those before it
                leave is cleared away when the next one ends.
        """
        if not keep_models:
            forget_models(self._keeps_compiled())
        self._settings.set_back()
        self._set_back_process()

    def _set_back_process(self) -> None:
        set_back_process(self._folder, self._environment)

    def _keeps_compiled(self) -> bool:
        """Whether what TensorFlow has compiled stays from one model to the next.

        Operations that draw random numbers keep a state in what is compiled. The built-in architecture has none; code
        of the user's may, so that each of its models begins without.
        """
        return not self.is_users

    def _load(self, seed: int) -> tuple[Architecture, CallbackFunctions]:
        self.set_seeds(seed)
        started = time.perf_counter()
        architecture = load_architecture(self.spec.model.architecture)
        names = self.spec.training.callbacks
        if repeated := [name for at, name in enumerate(names) if name in names[:at]]:
            raise SpecError(f"training.callbacks must name each function once, but {repeated[0]} is there twice.")
        callbacks = {name: load_function(name, "training.callbacks") for name in names}
        self._import_seconds = time.perf_counter() - started
        return architecture, callbacks


def forget_models(keep_compiled: bool = False) -> None:
    """Clear away what Keras and the user's modules keep of models that nobody uses any more.

    Args:
        keep_compiled: Keep what TensorFlow has compiled: its kernels, and functions that somebody still holds.
    """
    USER_MODULES.forget()
    clear_session(keep_compiled)
    gc.collect()  # graphs hold cycles; left alone they pile up over trials


def set_back_process(folder: Path, environment: Mapping[str, str]) -> None:
    """Have a current folder and variables of the environment again."""
    os.chdir(folder)
    for name in os.environ.keys() | environment.keys():
        value = environment.get(name)
        if value is None:
            del os.environ[name]
        elif os.environ.get(name) != value:
            os.environ[name] = value


@functools.cache
def _pristine_settings() -> FrameworkSettings:
    """The settings before anything of the user's was imported in this process."""
    return FrameworkSettings.read()


@functools.cache
def _pristine_keras() -> KerasCode:
    """Keras itself before anything of the user's was imported in this process."""
    return KerasCode()
