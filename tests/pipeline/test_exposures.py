import pytest

from pipeline.errors import AlignmentError
from pipeline.exposures import frame_number
from pipeline.manifest import Numbering, read_manifest


@pytest.mark.parametrize(("name", "number"), [("0007", 28), ("0007_002", 31), ("0004", 16), ("0004_000", 17)])
def test_x4k_names_count_quarters(name, number):
    assert frame_number(name, read_manifest("x4k1000fps").exposure.numbering) == number


def test_names_without_a_number_are_refused():
    for name in ("a", "", "7_", "7_2_1", "٧"):
        with pytest.raises(AlignmentError, match="has no number"):
            frame_number(name, Numbering())
    assert frame_number("key_id21", Numbering(pattern=r"(\d+)$", offset=-1)) == 20
