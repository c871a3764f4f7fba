import pytest

from tests.docs.world import Catalogue


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """What stands for the names in capitals of the pages."""
    return Catalogue(tmp_path_factory.mktemp("catalogue"))
