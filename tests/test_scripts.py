"""The environment that scripts/test.sh makes holds every optional package that a test would be skipped without."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_no_test_is_skipped_for_want_of_an_extra():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (asked,) = re.findall(r"^source scripts/environment.sh (\S+)$", (ROOT / "scripts/test.sh").read_text(), re.M)

    def packages(names) -> set[str]:
        return {re.match(r"[\w-]+", entry)[0].replace("-", "_") for name in names for entry in extras[name]}

    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    wanted = set(re.findall(r"importorskip\(\s*\"(\w+)", tests)) & packages(extras)
    assert {"jcm", "cfgrib", "s3fs"} <= wanted
    assert wanted <= packages(asked.split(",")), f"scripts/test.sh installs [{asked}]"
