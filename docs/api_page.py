"""The page of the Python interface: every public name with its signature and docstring, for `generate.py` beside it."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from functools import cached_property
from typing import Any

COLUMNS = 80  # of a signature on one line
API_HEAD = """# Python interface

All that the commands do can be called from a program, a notebook or a thread. Nothing is printed, no logging is set up,
no signal handler is installed, and the environment and Optuna's log level stay as they are. This page is generated from
the docstrings (`make docs-pages`).

```python
from fmnist_optuna import ProgressBar, confirm_study, export_model, load_exported, run_study

with run_study("my_study.toml", n_workers=4, observer=ProgressBar()) as study:
    print(study.status(), study.best().params)
    confirm_study(study)
    model = load_exported(export_model(study).folder)
```

Training needs processes of its own: a script that runs a study needs no `if __name__ == "__main__":` for it, and the
study's model must be in a module that can be imported, not in a cell of a notebook.

All names below are imported from `fmnist_optuna`: first what a program calls and gives, then what it gets, at last what
is raised. An error that a function may raise is one of its list, or derived from one.
"""
PROPERTIES = (property, cached_property)
MODULES = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])")  # before the name of a class
ARRAY = re.compile(r"numpy\.ndarray\[(?:[^][]|\[(?:[^][]|\[[^][]*\])*\])*\]")  # each numpy writes its shape otherwise
API_GIVEN = ("run_study", "open_study", "confirm_study", "export_model", "load_exported", "Study", "Observer",
             "ProgressBar", "StudySpec", "LadderPruner", "Dataset", "DatasetInfo")  # fmt: skip
API_RETURNED = ("CellCounts", "WorkerRow", "Epoch", "Metric", "Winner", "Unsettled", "Evaluation", "ClassResult",
                "Confusion", "Verification",
                "ConfirmedStudy", "Confirmation", "Candidate", "Sample", "AllData", "CrossValidation",
                "Ensemble", "Export",
                "ExportedModel")  # fmt: skip
API_ERRORS = ("FmnistOptunaError", "UsageError", "SpecError", "JoinRefusedError", "NotFoundError", "DataError",
              "StorageError", "ArtifactsError", "ArtifactsAwayError", "LaterVersionError", "UnreadableStudyError",
              "MismatchError", "StoppedError",
              "WorkerFailedError")  # fmt: skip
# Members of the others are for ourselves, for Optuna and for answers in JSON.
WITH_MEMBERS = {"Study", "Observer", "ProgressBar", *API_RETURNED} - {
    "Confirmation",
    "AllData",
    "CrossValidation",
    "Metric",
}


def render_api() -> str:
    """Every public name with its signature and docstring."""
    import fmnist_optuna

    order = (*API_GIVEN, *API_RETURNED, *API_ERRORS)
    if missing := set(fmnist_optuna.__all__) ^ set(order):
        raise ValueError(f"Every public name must be described, and no other, but {sorted(missing)} differ.")
    lines = [API_HEAD]
    for name in order:
        lines += _describe_name(getattr(fmnist_optuna, name), name, "##")
    return "\n".join(lines).rstrip() + "\n"


def _describe_name(thing: Any, name: str, level: str) -> Iterator[str]:
    yield f"{level} {name}\n"
    if inspect.isfunction(thing):
        yield f"```python\n{_signature(thing, name)}\n```\n"
    if isinstance(thing, PROPERTIES):
        getter = thing.fget if isinstance(thing, property) else thing.func
        yield f"```python\n{name}: {_result(getter)}\n```\n"
    text = inspect.getdoc(thing) or ""
    if name in API_ERRORS and thing.__base__ is not Exception:
        text = f"A `{thing.__base__.__name__}`. {text}"
    is_record = name in API_RETURNED and is_dataclass(thing)  # which nobody but us makes
    yield from _markdown(_with_inherited(thing).replace("\nArgs:\n", "\nAttributes:\n") if is_record else text)
    if name in WITH_MEMBERS:
        for method, found in vars(thing).items():
            if not method.startswith("_") and (inspect.isfunction(found) or isinstance(found, PROPERTIES)):
                yield from _describe_name(found, f"{name}.{method}", "###")


def _with_inherited(record: Any) -> str:
    """The docstring of a dataclass, whose last section is that of its fields, with those of its bases behind them."""
    bases = [inspect.getdoc(base) or "" for base in record.__mro__[1:] if is_dataclass(base)]
    return "\n".join([inspect.getdoc(record) or "", *(text.partition("\nArgs:\n")[2] for text in bases)])


def _signature(function: Any, name: str) -> str:
    """A parameter a line where one line is too long."""
    parameters = inspect.signature(function).parameters.values()
    short = [_shorten(str(each)) for each in parameters]
    if any(each.kind is each.KEYWORD_ONLY for each in parameters):
        short.insert(next(n for n, each in enumerate(parameters) if each.kind is each.KEYWORD_ONLY), "*")
    line = f"{name}({', '.join(short)})"
    if len(line) > COLUMNS:
        line = f"{name}(\n" + "".join(f"    {each},\n" for each in short) + ")"
    return f"{line} -> {_result(function)}"


def _result(function: Any) -> str:
    """The type of what a function returns."""
    return _shorten(inspect.formatannotation(inspect.signature(function).return_annotation))


def _shorten(annotation: str) -> str:
    """An annotation without modules, in which an array is just that."""
    return MODULES.sub("", ARRAY.sub("ndarray", annotation))


def _markdown(text: str) -> Iterator[str]:
    """A docstring with its sections as lists, and its examples as code."""
    prose, *sections = re.split(r"\n(Args|Attributes|Returns|Raises|Example):\n", f"\n{text}\n")
    yield f"{prose.strip()}\n"
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        content = inspect.cleandoc(f"\n{body}")
        if title == "Example":
            yield f"```python\n{content}\n```\n"
        elif title == "Returns":
            yield f"**Returns.** {content}\n"
        else:
            entries = (line.partition(": ") for line in re.sub(r"\n {4}", " ", content).splitlines())
            listed = [f"- {', '.join(f'`{name}`' for name in names.split(', '))}: {what}" for names, _, what in entries]
            yield "\n".join([f"**{title}.**\n", *listed, ""])
