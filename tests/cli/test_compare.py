from pathlib import Path

import pytest


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Evaluations of four sequences of nine frames, by how much better each is than the first."""
    shifts = {"a": 0.0, "better": 0.2, "worse": -0.2, "slightly": -0.04}
    for name, shift in shifts.items():
        folder = tmp_path / name / "eval" / "rgb8-all"
        folder.mkdir(parents=True)
        rows = [
            f"rgb8-all,test,s{s},{i:04d},{i},restored,{30 + s + 0.1 * i + shift + 0.001 * (i % 3)},0.9"
            for s in range(4)
            for i in range(9)
        ]
        header = "protocol,split,sequence,frame,index,method,psnr,ssim"
        (folder / "per_frame.csv").write_text("\n".join([header, *rows]) + "\n")
        known = '{"store": {"path": "S", "fingerprint": "f"}, "networks": {"restored": {"step": 4}}}'
        (folder / "summary.json").write_text(known)
    return {name: tmp_path / name for name in shifts}


def test_says_what_differs_and_by_how_much(runs: dict[str, Path], spk) -> None:
    ran = spk("compare", runs["a"], runs["better"])
    assert ran.code == 0
    for words in (
        "B - A over frames:    +0.2000 dB [+0.2000",
        "bootstrap of 4 sequences",
        "B is better",
        "step 4",
    ):
        assert words in ran.out


def test_the_gate_passes_what_is_better_or_hardly_worse(runs: dict[str, Path], spk) -> None:
    for name in ("a", "better", "slightly"):
        ran = spk("compare", runs["a"], runs[name], "--fail-if-worse", "0.05")
        assert (ran.code, "passed" in ran.out) == (0, True), ran.err


def test_the_gate_fails_with_5_and_says_by_how_much(runs: dict[str, Path], spk) -> None:
    ran = spk("compare", runs["a"], runs["worse"], "--fail-if-worse", "0.05", "--json")
    assert ran.code == 5
    assert "more than 0.05 dB psnr" in ran.err and "B - A is -0.2000 dB [-0.2000" in ran.err
    assert '"verdict": "worse"' in ran.out  # a gate's reader wants the numbers as well
    assert spk("compare", runs["a"], runs["slightly"], "--fail-if-worse", "0.03").code == 5
    assert spk("compare", runs["a"], runs["worse"]).code == 0


def test_one_json_object_and_a_picture(runs: dict[str, Path], tmp_path: Path, spk) -> None:
    picture = tmp_path / "compare.png"
    found = spk("compare", runs["a"], runs["worse"], "--json", "-o", picture, "--samples", 1000).json
    assert (found["frames"], found["verdict"], found["picture"]) == (36, "worse", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_says_what_was_left_out(runs: dict[str, Path], spk) -> None:
    file = runs["better"] / "eval" / "rgb8-all" / "per_frame.csv"
    file.write_text(file.read_text().replace("s3,0008", "s3,0009"))
    command = ("compare", runs["a"], file)
    spk(*command).assert_fails(2, "1 frames only A has, as s3/0008", "--common")
    ran = spk(*command, "--common")
    assert "1 frame that only A has, 1 that only B has" in ran.out and "s3/0008" in ran.err


def test_says_that_one_sequence_speaks_for_itself_alone(runs: dict[str, Path], spk) -> None:
    for name in ("a", "better"):
        file = runs[name] / "eval" / "rgb8-all" / "per_frame.csv"
        file.write_text("\n".join(file.read_text().splitlines()[:10]) + "\n")
    ran = spk("compare", runs["a"], runs["better"], "--fail-if-worse", "0.05")
    assert ran.code == 0 and "1 sequence cannot speak for others" in ran.out


def test_refuses_a_picture_that_is_no_png(runs: dict[str, Path], spk) -> None:
    spk("compare", runs["a"], runs["a"], "-o", "x.pdf").assert_fails(2, "x.pdf", "x.png")


def test_reads_what_an_evaluation_writes(trained: Path, tmp_path: Path, spk) -> None:
    assert spk("evaluate", trained, "-o", tmp_path / "eval", "-q").code == 0
    found = spk("compare", *[tmp_path / "eval"] * 2, "--against", "blurry", "--metric", "ssim", "--json").json
    assert (found["frames"], found["a"]["method"], found["b"]["step"]) == (3, "blurry", 4)
    assert found["verdict"] == "too few frames to tell" and found["difference"]["frames"]["mean"] != 0


def test_compares_without_ground_truth_and_by_what_the_first_frames_lack(
    trained: Path, tmp_path: Path, spk
) -> None:
    protocols = ("--protocol", "no-reference", "--protocol", "rgb8-change")
    spk("evaluate", trained, "-o", tmp_path / "eval", *protocols)
    command = ("compare", tmp_path, tmp_path, "--against", "blurry")
    no_reference = (*command, "--protocol", "no-reference", "--metric")
    spk(*no_reference, "psnr").assert_fails(2, "psnr_reblur, spikes")
    spk(*no_reference, "spikes").assert_fails(2, "spikes is best at 1", "--better higher or lower")
    assert spk(*no_reference, "spikes", "--better", "higher", "--json").json["frames"] == 3
    found = spk(*no_reference, "psnr_reblur", "--json").json
    assert (found["better"], found["frames"]) == ("higher", 3)
    found = spk(*command, "--protocol", "rgb8-change", "--metric", "psnr_change", "--json").json
    assert (found["better"], found["frames"]) == ("higher", 2)
    assert found["left_out"] == {"a": 0, "b": 0, "undefined": 1}
