"""[data] of a study file: which data, how it is prepared, and how the training images are split."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_serializer,
    model_validator,
)

from fmnist_optuna.search.cell import MAX_INTEGER
from fmnist_optuna.spec.options import Table

MAX_FOLDS = 1000  # more is a typing error
FORMS = ("idx", "folder", "npz", "keras")  # of a source that is a form and a place
SOURCE_PATTERN = rf"^(auto|fashion-mnist|synthetic|({'|'.join(FORMS)}):.+|[\w.]+:\w+)$"
LONGEST_SOURCE = 512  # characters, as the ledger keeps it
FUNCTION = "package.module:function"  # stands for such sources below
KEYS_OF_FORMS = {  # keys that go with some sources alone
    "size": ("folder",),
    "mode": ("folder",),
    "resize": ("folder",),
    "skip_broken": ("folder",),
    "test_share": ("folder", "npz", FUNCTION),
    "class_names": ("idx", "npz"),
}


def form_of(source: str) -> str:
    """What the user's own data is: "idx", "folder", "npz" or "keras", or FUNCTION; of other data empty."""
    form, colon, _ = source.partition(":")
    return "" if not colon else form if form in FORMS else FUNCTION


class DataSpec(Table):
    """Which data, and how the training images are split; `n_validation` images are held out, stratified by label.

    With folds each of them is held out once in the place of that, and `n_validation` says nothing.

    How many images may be held out, or folds there may be, depends on how many there are: it is known once they are
    read.
    """

    source: StrictStr = Field(default="auto", pattern=SOURCE_PATTERN, max_length=LONGEST_SOURCE)
    n_validation: StrictInt = Field(default=12_000, ge=2, le=MAX_INTEGER)
    folds: StrictInt = Field(default=0, ge=0, le=MAX_FOLDS)
    split_seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)
    size: tuple[Annotated[StrictInt, Field(ge=1, le=4096)], ...] = ()
    mode: Literal["as-they-are", "grey", "colour"] = "as-they-are"
    resize: Literal["pad", "crop", "stretch"] = "pad"
    skip_broken: StrictBool = False
    test_share: StrictFloat = Field(default=0.15, ge=0.01, le=0.9)
    class_names: tuple[StrictStr, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether the data is the user's own: of files, or of a function."""
        return bool(self.form)

    @property
    def form(self) -> str:
        """What `form_of` says of the source."""
        return form_of(self.source)

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's gives the data."""
        return self.form == FUNCTION

    @property
    def place(self) -> str:
        """Where the data is: what stands behind the form; of a function its name."""
        return self.source.partition(":")[2]

    @model_validator(mode="after")
    def _has_keys_of_its_form(self) -> "DataSpec":
        if len(self.size) not in (0, 2):
            raise ValueError(f"size must be height and width, but got {list(self.size)}")
        for key, forms in KEYS_OF_FORMS.items():
            if key in self.model_fields_set and self.form not in forms:
                wanted = " or ".join(form if form == FUNCTION else f"{form}:" for form in forms)
                raise ValueError(f"{key} must go with a source {wanted}, but source is {self.source!r}")
        return self

    @model_validator(mode="after")
    def _splits_in_one_way(self) -> "DataSpec":
        if self.folds == 1:
            raise ValueError("folds must be at least 2, or 0 for none, but got 1")
        if self.folds and "n_validation" in self.model_fields_set:
            raise ValueError(
                f"folds must go without n_validation, as each image validates once, but is {self.folds}; remove one of "
                "both"
            )
        return self

    @model_serializer(mode="wrap")
    def _leave_out_what_came_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A study that has the default of a later key is what it was before there was a choice."""
        left_out = self.find_unchanged((*KEYS_OF_FORMS, "folds")) | ({"n_validation"} if self.folds else set())
        return {name: value for name, value in serialize(self).items() if name not in left_out}
