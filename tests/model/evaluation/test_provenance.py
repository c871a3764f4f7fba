"""What a summary says of where its numbers come from."""

import json

from model.evaluation.provenance import provenance
from tests.model.evaluation.test_lineup import STORE, lined_up


def test_everything_that_made_the_numbers_is_told_as_plain_values() -> None:
    lineup, config = lined_up(tile=64)
    told = provenance(lineup, STORE, config)
    json.dumps(told)
    assert told["store"] == {"path": "s.zarr", "name": "made", "fingerprint": "f00d"}
    assert told["networks"]["restored"]["step"] == 7 and told["networks"]["restored"]["tiling"]["tile"] == 64
    assert told["versions"]["device"] == "cpu" and "ablations" not in told
    assert told["command"].startswith("spk evaluate run s.zarr") and "tile=64" in told["command"]
