"""YAML files that could be read in two ways are refused; what is written is read back as it was."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import yaml_files
from pipeline.errors import ConfigError
from pipeline.yaml_files import dump_yaml, parse_yaml, read_yaml


def test_reads_a_mapping_with_its_types(tmp_path):
    (tmp_path / "c.yaml").write_text("a: 1\nb: {c: [1.5, x, true, null]}\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": 1, "b": {"c": [1.5, "x", True, None]}}


def test_an_empty_text_is_an_empty_mapping():
    assert parse_yaml("", "x") == parse_yaml("# nothing\n", "x") == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "key 'a' appears twice"),
        ("a: {b: 1, b: 2}\n", "key 'b' appears twice"),
        ("a: &x [1]\nb: *x\n", r"alias \*x is not allowed"),
        ("a: &a [x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "alias"),
        ("? [1, 2]\n: 3\n", "is not text"),
        ("- 1\n", "expected a mapping"),
        ("3: x\n", "expected a mapping"),
        ("a: [1\n", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['x']\n", "not valid YAML"),
        ("a: " + "[" * 20_000, "not valid YAML"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: 0x" + "f" * 500, "a number of 502 characters"),
        ("a: 1" + ":1" * 50_000, "a number of 100001 characters"),
    ],
)
def test_refuses_doubtful_yaml(tmp_path, text, problem):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        read_yaml(tmp_path / "c.yaml")
    assert str(tmp_path / "c.yaml") in caught.value.problem


def test_refuses_files_that_are_missing_or_huge_or_not_text(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path)
    (tmp_path / "b.yaml").write_bytes(b"a: \xff\xfe\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "b.yaml")
    monkeypatch.setattr(yaml_files, "MAX_YAML_BYTES", 3)
    (tmp_path / "c.yaml").write_text("a: 1")
    with pytest.raises(ConfigError, match="4 bytes is too large"):
        read_yaml(tmp_path / "c.yaml")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back_exactly(value):
    text = dump_yaml({"lr": value})
    assert parse_yaml(text, "x")["lr"] == value and type(parse_yaml(text, "x")["lr"]) is float


@pytest.mark.parametrize(
    ("value", "text"),
    [(1e-05, "{lr: 1.0e-05}"), (1e16, "{lr: 1.0e+16}"), (2.5e-7, "{lr: 2.5e-07}"), (3.0, "{lr: 3.0}")],
)
def test_floats_are_written_as_yaml_reads_them(value, text):
    assert dump_yaml({"lr": value}).strip() == text


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_are_none_are_written_as_yaml_has_them(value):
    assert repr(yaml.safe_load(dump_yaml({"a": value}))["a"]) == repr(value)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.text(max_size=5),
        st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=9), st.lists),
    )
)
def test_plain_values_come_back_in_their_order(values):
    found = parse_yaml(dump_yaml(values), "x")
    assert found == values and list(found) == list(values)


def test_a_value_that_stands_in_two_places_is_written_twice():
    shared = [1, 2]
    assert parse_yaml(dump_yaml({"a": shared, "b": shared}), "x") == {"a": [1, 2], "b": [1, 2]}


def test_a_file_without_size_and_end_is_read_no_further_than_the_limit(tmp_path):
    """Files of /proc say that they are of 0 bytes."""
    (tmp_path / "a.yaml").symlink_to("/proc/self/pagemap")
    with pytest.raises(ConfigError, match="too large"):
        read_yaml(tmp_path / "a.yaml")
