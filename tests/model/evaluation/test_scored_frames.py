import math
from pathlib import Path

import pytest

from model.evaluation.scored_frames import choose_protocol, find_scores, read_scores
from pipeline.errors import UsageError


def read(path: Path, **changes: str | None):
    wanted = {"protocol": None, "method": "restored", "metric": "psnr"} | changes
    return read_scores(path, **wanted)


def test_finds_the_scores_of_a_run_its_eval_a_protocol_or_the_file(scored_run) -> None:
    run = scored_run("a", {"s1": [30]})
    scored_run("a", {"s1": [30]}, protocol="kair")
    file = run / "eval" / "rgb8-all" / "per_frame.csv"
    assert find_scores(run) == find_scores(run / "eval")
    assert find_scores(run) == {"kair": run / "eval" / "kair" / "per_frame.csv", "rgb8-all": file}
    assert find_scores(file.parent) == find_scores(file) == {"": file}


def test_refuses_a_place_without_scores(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such"):
        find_scores(tmp_path / "none")
    with pytest.raises(UsageError, match="no per_frame"):
        find_scores(tmp_path)


FILES = {name: Path(name) for name in ("rgb8-all", "kair", "ssdm")}


def test_the_protocol_that_both_have() -> None:
    only = {"kair": Path("kair")}
    assert choose_protocol((FILES, only), None) == "kair"
    assert choose_protocol((FILES, FILES), None) == "rgb8-all"
    assert choose_protocol((FILES, FILES), "ssdm") == "ssdm"
    assert choose_protocol((FILES, {"": Path("x")}), "ssdm") == "ssdm"
    assert choose_protocol(({"": Path("x")}, {"": Path("y")}), None) is None


@pytest.mark.parametrize(
    ("a", "b", "wanted", "words"),
    [
        (["kair"], ["ssdm"], None, "no protocol that both have"),
        (["kair"], ["kair"], "ssdm", "by protocol ssdm; there are kair and kair"),
        (["kair", "ssdm"], ["kair", "ssdm"], None, "several protocols: kair, ssdm"),
    ],
)
def test_refuses_a_protocol_that_is_not_clear(
    a: list[str], b: list[str], wanted: str | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        choose_protocol(({name: FILES[name] for name in a}, {name: FILES[name] for name in b}), wanted)


def test_reads_one_method_by_frame_in_order_of_time(scored_run) -> None:
    run = scored_run("a", {"s2": ["30.5", "inf"], "s1": ["", "29"]})
    file = run / "eval" / "rgb8-all" / "per_frame.csv"
    lines = file.read_text().splitlines()
    more = ["rgb8-all,test,s2,0000,0,blurry,20,0.5"]
    file.write_text("\n".join([lines[0] + ",lpips", *(line + "," for line in [*more, *lines[:0:-1]])]) + "\n")
    found = read(file)
    assert list(found.values) == [("s1", "0000"), ("s1", "0001"), ("s2", "0000"), ("s2", "0001")]
    assert math.isnan(found.values["s1", "0000"]) and found.values["s2", "0001"] == math.inf
    assert (found.protocol, found.split, found.fingerprint) == ("rgb8-all", "test", "same")
    assert found.network == {"step": 4}
    assert read(file, method="blurry").values == {("s2", "0000"): 20}
    assert all(math.isnan(value) for value in read(file, metric="lpips").values.values())


def test_a_file_alone_says_nothing_of_the_store(scored_run) -> None:
    run = scored_run("a", {"s1": [30]}, fingerprint=None)
    found = read(run / "eval" / "rgb8-all" / "per_frame.csv")
    assert found.fingerprint is None and found.network == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"protocol": "kair"}, "kair is not among rgb8-all"),
        ({"method": "fused"}, "no method 'fused'; there are restored"),
        ({"metric": "lpips"}, "no metric 'lpips'; there are psnr, ssim"),
        ({"metric": "frame"}, "no metric 'frame'"),
    ],
)
def test_refuses_what_is_not_there(changes: dict[str, str], words: str, scored_run) -> None:
    file = scored_run("a", {"s1": [30]}) / "eval" / "rgb8-all" / "per_frame.csv"
    with pytest.raises(UsageError, match=words):
        read(file, **changes)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rgb8-all,test,s1,0000,0,restored,31,0.9", "csv:3: s1/0000 is there twice"),
        ("rgb8-all,test,s1,0001,0,restored,x,0.9", "csv:3: could not convert"),
        ("rgb8-all,test,s1,0001,0,restored,31", "csv:3: not 8 cells"),
        ("rgb8-all,test,s1,0001,0,restored,31,0.9,1", "csv:3: not 8 cells"),
        ("rgb8-all,val,s1,0001,0,restored,31,0.9", "splits test, val"),
        ("kair,test,s1,0001,0,restored,31,0.9", "no protocol among rgb8-all, kair"),
    ],
)
def test_refuses_a_damaged_table(line: str, words: str, scored_run) -> None:
    file = scored_run("a", {"s1": [30]}) / "eval" / "rgb8-all" / "per_frame.csv"
    with file.open("a") as table:
        table.write(line + "\n")
    with pytest.raises(UsageError, match=words):
        read(file)


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe", b""])
def test_refuses_what_is_no_table_of_scores(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "per_frame.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"per_frame\.csv: (not an evaluation's|cannot be read)"):
        read(file)


@pytest.mark.parametrize("content", ["{", "[]", '{"store": 1, "networks": {}}'])
def test_refuses_a_damaged_summary(content: str, scored_run) -> None:
    folder = scored_run("a", {"s1": [30]}) / "eval" / "rgb8-all"
    (folder / "summary.json").write_text(content)
    with pytest.raises(UsageError, match=r"summary\.json: cannot be read"):
        read(folder / "per_frame.csv")
