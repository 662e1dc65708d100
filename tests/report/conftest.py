import pytest
from made_scores import made_scores

from emulator.report.view import View
from emulator.verify.assemble import open_scores


@pytest.fixture(scope="session")
def scored(tmp_path_factory):
    """The path of `scores.nc` of a small planet; the stores lie beside it."""
    return made_scores(tmp_path_factory.mktemp("scored"))


@pytest.fixture
def view(scored) -> View:
    return View(open_scores(scored))
