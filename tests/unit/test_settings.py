"""What the environment says: every promise of `settings`."""

from pathlib import Path

import pytest

from fmnist_optuna.errors import StorageError, UsageError
from fmnist_optuna.settings import DEFAULT_STORAGE, Settings, choose_gpu, prepare_training_environment, set_hash_seed


@pytest.mark.parametrize("text", ["soon", "0.9", "86401", "nan", "inf", "-60"])
def test_a_lease_outside_its_range_is_refused(text: str) -> None:
    """The text names the variable, the range and what came."""
    with pytest.raises(UsageError) as error:
        Settings.from_environment({"FMNIST_OPTUNA_LEASE_SECONDS": text})
    assert str(error.value) == (
        f"FMNIST_OPTUNA_LEASE_SECONDS must be a number of seconds from 1 to 86400, but got {text!r}."
    )


def test_a_storage_file_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    """The text names the variable and the file."""
    with pytest.raises(StorageError, match=r"FMNIST_OPTUNA_STORAGE_FILE must name a readable file.*nowhere"):
        Settings.from_environment({"FMNIST_OPTUNA_STORAGE_FILE": str(tmp_path / "nowhere")})


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_storage_file_is_a_storage_error(tmp_path: Path, content: str) -> None:
    """A file without a URL does not fall back to the default."""
    (tmp_path / "url").write_text(content)
    with pytest.raises(StorageError, match="is empty"):
        Settings.from_environment({"FMNIST_OPTUNA_STORAGE_FILE": str(tmp_path / "url")})


def test_a_storage_file_that_is_no_text_is_a_storage_error(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are named, not traced."""
    (tmp_path / "url").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(StorageError, match="must name a readable file"):
        Settings.from_environment({"FMNIST_OPTUNA_STORAGE_FILE": str(tmp_path / "url")})


def test_an_empty_environment_gives_the_defaults() -> None:
    """studies/studies.db under the current folder, a lease of 60 s."""
    assert Settings.from_environment({}) == Settings(storage=DEFAULT_STORAGE, lease_seconds=60.0)


def test_the_storage_file_is_read_without_its_line_end(tmp_path: Path) -> None:
    """A secret mounted as a file usually ends with a newline."""
    (tmp_path / "url").write_text("postgresql://host/db\n")
    settings = Settings.from_environment({"FMNIST_OPTUNA_STORAGE_FILE": str(tmp_path / "url")})
    assert settings.storage == "postgresql://host/db"


def test_the_storage_variable_wins_over_the_file() -> None:
    """The file is not even read."""
    environ = {"FMNIST_OPTUNA_STORAGE": "sqlite:///a.db", "FMNIST_OPTUNA_STORAGE_FILE": "nowhere"}
    assert Settings.from_environment(environ).storage == "sqlite:///a.db"


@pytest.mark.parametrize(("text", "seconds"), [("1", 1.0), ("86400", 86_400.0), ("2.5", 2.5), ("", 60.0)])
def test_a_lease_within_its_range_is_taken(text: str, seconds: float) -> None:
    """Both ends belong to the range; an empty variable is as none."""
    assert Settings.from_environment({"FMNIST_OPTUNA_LEASE_SECONDS": text}).lease_seconds == seconds


def test_all_that_tensorflow_reads_at_import_is_set() -> None:
    """A quiet log and a GPU whose memory grows on demand; the kernels are TensorFlow's choice, as some are unsafe."""
    environ: dict[str, str] = {}
    prepare_training_environment(environ)
    assert environ == {
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
        "KERAS_BACKEND": "tensorflow",
    }


def test_what_the_user_set_for_tensorflow_stays() -> None:
    """A person who wants the C++ log, and TensorFlow's own kernels, gets them."""
    environ = {"TF_CPP_MIN_LOG_LEVEL": "0", "TF_ENABLE_ONEDNN_OPTS": "0"}
    prepare_training_environment(environ)
    assert environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert environ["TF_ENABLE_ONEDNN_OPTS"] == "0"


@pytest.mark.parametrize(("given", "seed"), [({}, "0"), ({"PYTHONHASHSEED": ""}, "0"), ({"PYTHONHASHSEED": "7"}, "7")])
def test_strings_are_hashed_alike_unless_the_user_says_how(given: dict[str, str], seed: str) -> None:
    """An empty variable is as none."""
    environ = dict(given)
    set_hash_seed(environ)
    assert environ == {"PYTHONHASHSEED": seed}


@pytest.mark.parametrize(("slot", "device"), [(0, "3"), (1, "5"), (2, "3")])
def test_workers_take_the_visible_gpus_in_turn(slot: int, device: str) -> None:
    """Slot modulo the number of devices that are visible."""
    environ = {"CUDA_VISIBLE_DEVICES": "3,5"}
    choose_gpu(slot, environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == device


@pytest.mark.parametrize("given", ["1, 3", "GPU-5c2,GPU-77a", "1,-1,3", "NoDevFiles"])
def test_a_worker_alone_takes_the_first_visible_gpu(given: str) -> None:
    """By number or by name, as CUDA reads the list: what comes after a -1 is not seen."""
    for slot in (0, 2):
        environ = {"CUDA_VISIBLE_DEVICES": given}
        choose_gpu(slot, environ)
        assert environ["CUDA_VISIBLE_DEVICES"] == given.split(",")[0]


@pytest.mark.parametrize(("files", "devices"), [(["nvidia3"], ["0", "0"]), (["nvidia0", "nvidia1"], ["0", "1"])])
def test_devices_are_counted_and_not_named(tmp_path: Path, files: list[str], devices: list[str]) -> None:
    """A container that was given the fourth GPU alone has it as its first; what is no device of its own is left out."""
    for name in [*files, "nvidiactl", "nvidia-uvm"]:
        (tmp_path / name).touch()
    for slot, device in enumerate(devices):
        environ: dict[str, str] = {}
        choose_gpu(slot, environ, tmp_path)
        assert environ == {"CUDA_VISIBLE_DEVICES": device}


def test_without_a_gpu_nothing_is_set(tmp_path: Path) -> None:
    """A machine without a device file keeps its environment."""
    environ: dict[str, str] = {}
    choose_gpu(0, environ, tmp_path)
    assert environ == {}


@pytest.mark.parametrize("listed", ["", "-1"])
def test_hidden_gpus_stay_hidden(listed: str) -> None:
    """An empty list and -1 mean none."""
    environ = {"CUDA_VISIBLE_DEVICES": listed}
    choose_gpu(0, environ)
    assert environ == {"CUDA_VISIBLE_DEVICES": listed}
