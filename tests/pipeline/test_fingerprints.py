import hashlib

import numpy as np
import pytest

from pipeline.fingerprints import fingerprint_of


def test_is_the_sha256_of_the_sorted_json():
    assert fingerprint_of({"b": [1, (2,)], "a": "x"}) == hashlib.sha256(b'{"a":"x","b":[1,[2]]}').hexdigest()


def test_tells_values_apart_and_not_orders():
    assert fingerprint_of({"a": 1, "b": 2}) == fingerprint_of({"b": 2, "a": 1})
    assert fingerprint_of([1, 2]) != fingerprint_of([2, 1])
    assert fingerprint_of("1") != fingerprint_of(1)


@pytest.mark.parametrize("value", [{1, 2}, object(), np.arange(3)])
def test_refuses_what_has_no_one_text(value):
    with pytest.raises(TypeError):
        fingerprint_of([value])
