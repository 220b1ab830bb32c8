"""Places of artifacts: what a URL may be, what a study keeps of it, and how a machine reaches it."""

import pytest

from fmnist_optuna.artifacts.place import Place, parse_place, read_place
from fmnist_optuna.errors import UsageError
from fmnist_optuna.ledger.options import StorageOptions
from fmnist_optuna.settings import Here

SECRET = "hunter2"
GOOD = {
    "s3://studies": Place("studies"),
    "s3://studies/": Place("studies"),
    "s3://my-studies.2026/team/garments/": Place("my-studies.2026", "team/garments"),
    "s3://studies/a?endpoint=http://127.0.0.1:9000": Place("studies", "a", "http://127.0.0.1:9000"),
    "s3://studies/a?endpoint=https://minio.lan/&region=eu-central-1": Place(
        "studies", "a", "https://minio.lan", "eu-central-1"
    ),
    "s3://studies?path_style=false&endpoint=http://[::1]:9000": Place(
        "studies", "", "http://[::1]:9000", None, is_path_style=False
    ),
}
BAD = (
    *("studies", "/srv/artifacts", "gs://studies/a", "s3:/studies", "s3://", "s3:///a", "s3://St", "s3://S3UDIES/a"),
    *(
        "s3://studies/../a",
        "s3://studies/a/./b",
        "s3://studies//a",
        "s3://studies/a b",
        "s3://studies/a\n",
        "s3://st%2f",
    ),
    *("s3://studies/a?region=EU", "s3://studies/a?style=path", "s3://studies/a?path_style=yes"),
    *("s3://studies/a?region=a&region=b", "s3://studies/a?endpoint=", "s3://studies/a?endpoint=minio:9000"),
    *("s3://studies/a?endpoint=http://minio/path", "s3://studies/a#0123456789abcdef", "s3://studies/checkpoints#x"),
)


@pytest.mark.parametrize("text", GOOD)
def test_a_place_is_read_from_its_url(text: str) -> None:
    """And comes back from the URL that a study keeps, with the study's mark."""
    assert parse_place(text) == GOOD[text]
    marked = GOOD[text].for_study(Here())
    assert read_place(marked.to_url()) == marked
    assert marked.mark != GOOD[text].for_study(Here()).mark


@pytest.mark.parametrize("text", BAD)
def test_another_form_of_place_is_refused(text: str) -> None:
    """In one line that says what must stand there."""
    with pytest.raises(UsageError, match=r"^(artifacts|The endpoint) \(.* must be (s3://|http://).*, but ") as error:
        parse_place(text)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text", [f"s3://me:{SECRET}@studies/a", f"s3://studies/a?endpoint=http://me:{SECRET}@minio:9000", f"{SECRET}@x"]
)
def test_credentials_in_a_place_are_not_repeated(text: str) -> None:
    """They are refused, and the text does not show them."""
    with pytest.raises(UsageError, match=r"credentials") as error:
        parse_place(text)
    assert SECRET not in str(error.value)


def test_credentials_in_an_endpoint_are_not_repeated() -> None:
    """Whoever sets the endpoint in the environment learns how they are given instead."""
    with pytest.raises(UsageError, match=r"FMNIST_OPTUNA_S3_ENDPOINT.*AWS_ACCESS_KEY_ID") as error:
        Place("studies").seen_from(Here(endpoint=f"http://me:{SECRET}@minio:9000"))
    assert SECRET not in str(error.value)


def test_a_machine_may_reach_a_place_by_other_names() -> None:
    """Its endpoint, region and style come before the study's, and those before what AWS' own programs read."""
    kept = Place("studies", "a", "http://minio:9000", "eu-central-1")
    here = Here.from_environment(
        {
            "FMNIST_OPTUNA_S3_ENDPOINT": "https://minio.example.org",
            "FMNIST_OPTUNA_S3_REGION": "us-east-1",
            "FMNIST_OPTUNA_S3_PATH_STYLE": "false",
            "AWS_ENDPOINT_URL_S3": "http://elsewhere",
        }
    )
    assert kept.seen_from(here) == Place("studies", "a", "https://minio.example.org", "us-east-1", is_path_style=False)
    aws = Here.from_environment({"AWS_ENDPOINT_URL": "http://elsewhere"})
    assert kept.seen_from(aws).endpoint == "http://minio:9000"
    assert Place("studies").seen_from(aws).endpoint == "http://elsewhere"


def test_buckets_stand_in_the_path_of_an_endpoint() -> None:
    """Most servers but AWS have no host name a bucket."""
    styles = [Place("studies", endpoint=each).seen_from(Here()).is_path_style for each in ("http://minio:9000", None)]
    assert styles == [True, False]


def test_a_study_keeps_the_endpoint_of_its_maker() -> None:
    """Though it stood in the environment: a colleague's would lead to a bucket of the same name elsewhere."""
    made = parse_place("s3://studies/a").for_study(Here(aws_endpoint="http://minio:9000", region="eu-west-1"))
    assert (made.endpoint, made.region) == ("http://minio:9000", "eu-west-1")
    assert parse_place("s3://studies/a").is_met_by(made)


def test_a_study_keeps_the_names_of_its_url() -> None:
    """Those by which its maker alone reaches the bucket are of no use to others, and the same command joins."""
    given = parse_place("s3://studies/a?endpoint=http://minio:9000&region=eu-west-1")
    made = given.for_study(Here(endpoint="http://localhost:9000", region="here"))
    assert (made.endpoint, made.region) == ("http://minio:9000", "eu-west-1")
    assert given.is_met_by(made)


@pytest.mark.parametrize("text", ["s3://studies/b", "s3://others/a", "s3://studies/a?endpoint=http://minio:9001"])
def test_another_place_is_another(text: str) -> None:
    """What is named must agree."""
    assert not parse_place(text).is_met_by(Place("studies", "a", "http://minio:9000", mark="0" * 16))


def test_a_style_is_true_or_false() -> None:
    """Anything else is refused by the variable's name."""
    with pytest.raises(UsageError, match="FMNIST_OPTUNA_S3_PATH_STYLE must be true or false, but got 'path'"):
        Here.from_environment({"FMNIST_OPTUNA_S3_PATH_STYLE": "path"})


def test_the_environment_may_name_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option wins over it."""
    monkeypatch.setenv("FMNIST_OPTUNA_ARTIFACTS", "s3://studies/a")
    assert StorageOptions.from_environment().artifacts == Place("studies", "a")
    assert StorageOptions.from_environment(artifacts="s3://studies/b").artifacts == Place("studies", "b")
