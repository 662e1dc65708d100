"""What the tests of downscaling share."""

import pytest
from pair_of_stores import two_stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Paths of the fine and the coarse store, at the same times."""
    return two_stores(tmp_path_factory.mktemp("stores"))
