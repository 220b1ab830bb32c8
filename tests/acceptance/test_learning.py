"""`training.teacher`: a study learns from the smoke study's winner, whatever becomes of that afterwards."""

import pytest
from shell import SMOKE, Answer, Shell

pytestmark = pytest.mark.more

STUDENT = (
    SMOKE.replace('"smoke"', '"student"')
    .replace("[16, 32]", "[8]")
    .replace("max_epochs = 3", 'max_epochs = 1\nteacher = "smoke"\nteacher_temperature = 2')
)
ASKED, TOLD = "taking the answers of smoke, trial ", "it learns from smoke, trial "
LEARNED = "  learned from smoke, trial "


@pytest.fixture
def student(smoke_copy: Shell) -> Shell:
    """A folder with the smoke study, and the file of one that learns from it."""
    smoke_copy.write("student.toml", STUDENT)
    return smoke_copy


def soft_labels_of(shell: Shell) -> list[str]:
    """The files that Optuna knows as a study's soft labels."""
    rows = shell.query("SELECT value_json FROM study_system_attributes WHERE value_json LIKE '%soft-labels.npy%'")
    return [value for (value,) in rows]


def learned(answer: Answer) -> bool:
    return any(line.startswith(LEARNED) for line in answer.stdout.splitlines())


def test_a_study_learns_from_another_for_good(student: Shell) -> None:
    """Two workers share one file of answers; without the teacher its trials are still the same to the last bit."""
    ran = student("run", "student.toml", "--workers", "2")
    assert ran.code == 0, ran.stderr
    lines = ran.stderr.splitlines()
    asked, told = (next(i for i, line in enumerate(lines) if line.startswith(begin)) for begin in (ASKED, TOLD))
    assert asked < told
    assert learned(ran)
    best = student("best", "smoke", "--json").json
    teacher = student("best", "student", "--json").json["teacher"]
    assert (teacher["study"], teacher["trial"], teacher["params"]) == ("smoke", best["trial"], best["params"])
    assert student("delete", "smoke", "--yes").code == 0
    reproduced = student("reproduce", "0", "student", "--json")
    assert (reproduced.code, reproduced.json["matches"]) == (0, True)
    assert learned(student("show", "0", "student"))
    assert len(soft_labels_of(student)) == 1
    assert student("delete", "student", "--yes").code == 0
    assert not list((student.folder / "studies" / "artifacts").iterdir())


@pytest.mark.more
def test_all_that_is_told_of_a_student_names_its_teacher(student: Shell) -> None:
    """The teacher's seeds, in the report, the card and the manifest; the student's own seeds learn the same."""
    assert student("confirm", "smoke", "--top", "1", "--seeds", "2").code == 0
    made = student("init", "student.toml")
    assert (made.code, ASKED in made.stderr) == (0, True)
    assert student("run", "student.toml").code == 0
    again = student("run", "student.toml")  # asks no teacher
    assert (again.code, "is finished" in again.stderr, ASKED in again.stderr) == (0, True, False)
    confirmed = student("confirm", "student", "--top", "1", "--seeds", "2")
    assert confirmed.code == 0, confirmed.stderr
    assert learned(confirmed)
    assert ", the only one compared\n" in confirmed.stdout
    assert student("verify", "student/confirm").code == 0
    assert len(soft_labels_of(student)) == 1
    assert student("report", "student").code == 0
    assert student("export", "student").code == 0
    folder = student.folder / "models" / "student" / "1"
    texts = [(student.folder / "student-report.html").read_text(), (folder / "MODEL_CARD.md").read_text()]
    assert all("smoke, trial " in text and "mean of 2 seeds" in text for text in texts)
    assert "by validation accuracy, trained again over 2 fresh seeds, in its original training" in texts[1]
    assert '"n_seeds": 2' in (folder / "manifest.json").read_text()


@pytest.mark.more
def test_a_teacher_of_another_split_is_refused(student: Shell) -> None:
    """Before anything is made: it may have been trained on the images that this study is validated on."""
    student.write("student.toml", STUDENT.replace('"synthetic"', '"synthetic"\nsplit_seed = 1'))
    refused = student("run", "student.toml")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.errors[0].startswith("Error: training.teacher must be a study of the same images and the same split")
    assert student.query("SELECT study_name FROM fmnist_studies") == [("smoke",)]
