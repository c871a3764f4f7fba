"""Fingerprints of settings and metadata: what shows that two builds would give the same."""

import hashlib
import json
from typing import Any


def fingerprint_of(value: Any) -> str:
    """SHA-256 of a JSON value, however its mappings are ordered.

    Raises:
        TypeError: something in it is not JSON: its text might differ from one run to the next.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
