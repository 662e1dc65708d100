"""What the project's own files say of one another: extras and tests, versions and dates, the quickstart and its comment."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

import yaml

from pipelines.load import load_experiment

ROOT = Path(__file__).resolve().parents[1]
BY_HAND = {"earth2studio"}  # an extra too large for every run, whose pins fight others': its tests are run where it is


def test_no_test_is_skipped_for_want_of_an_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = re.findall(r"^source scripts/environment.sh (\S+)$", (ROOT / "scripts/test.sh").read_text(), re.M)

    def packages(names) -> set[str]:
        return {re.match(r"[\w-]+", entry)[0].replace("-", "_") for name in names for entry in extras[name]}

    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    wanted = set(re.findall(r"importorskip\(\s*\"(\w+)", tests)) & packages(extras)
    assert {"jcm", "cfgrib", "s3fs"} <= wanted
    wanted -= BY_HAND
    assert wanted <= packages(asked.split(",")), f"scripts/test.sh installs [{asked}]"


def test_version_and_date_of_the_citation_are_those_of_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest, when = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.M).groups()
    assert citation["version"] == newest == version
    assert str(citation.get("date-released", "unreleased")) == when


def test_the_quickstarts_comment_counts_its_days():
    path = ROOT / "conf" / "quickstart.yaml"
    experiment = load_experiment(path)
    first = experiment.simulate.start + timedelta(days=experiment.simulate.spin_up_days)

    def day(date) -> int:
        return (date - first).days + 1

    trained, verified = day(experiment.train.period.end), day(experiment.rollout.period.start)
    expected = f"1-{trained} .* {trained + 1}-{verified - 1} are left out, and {verified}-{experiment.simulate.days} "
    assert re.search(expected, " ".join(path.read_text().replace("#", "").split()))
    assert experiment.stats.period == experiment.train.period and experiment.verify.climatology.end == first.replace(
        year=first.year + 1
    )


def test_every_file_of_tests_has_a_name_of_its_own():
    """pytest imports them by their names alone, and ends where two are alike."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
