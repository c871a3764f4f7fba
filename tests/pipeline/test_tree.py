import os

import pytest

from pipeline.errors import FormatError, UsageError
from pipeline.tree import Tree


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_matches_files_at_any_depth_and_passes_hidden_ones_over(tmp_path):
    fill(
        tmp_path,
        "train/a/1.png",
        "train/b/c/2.png",
        "train/a/.DS_Store",
        "train/a/._1.png",
        "train/.git/x/3.png",
    )
    found = [(v["sequence"], v["frame"]) for v in Tree(tmp_path).matches("train/{sequence}/{frame}.png")]
    assert found == [("a", "1"), ("b/c", "2")]


def test_a_folder_that_is_not_there_holds_nothing(tmp_path):
    assert list(Tree(tmp_path).matches("train/{sequence}/{frame}.png")) == []
    assert Tree(tmp_path).find("train/a.dat") is None
    assert Tree(tmp_path).find("train/*.dat") is None


def test_a_star_must_fit_one_file(tmp_path):
    fill(tmp_path, "s/a.dat", "s/.b.dat", "s/c.txt")
    assert Tree(tmp_path).find("s/*.dat") == tmp_path / "s/a.dat"
    fill(tmp_path, "s/b.dat")
    with pytest.raises(FormatError, match=r"fits 2 files, a.dat and b.dat"):
        Tree(tmp_path).find("s/*.dat")


def test_refuses_links_that_lead_out_of_the_root(tmp_path):
    fill(tmp_path, "outside/a.dat", "root/train/in/a.dat")
    root = tmp_path / "root"
    (root / "file.dat").symlink_to(tmp_path / "outside/a.dat")
    with pytest.raises(UsageError, match="leads out of"):
        Tree(root).find("file.dat")
    with pytest.raises(UsageError):
        Tree(root).find("../outside/a.dat")
    (root / "train/out").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(UsageError, match="leads out of"):
        list(Tree(root).matches("train/{sequence}/a.dat"))
    with pytest.raises(UsageError, match="leads out of"):
        Tree(root).find("train/out/a.dat")


def test_follows_links_that_stay_inside(tmp_path):
    fill(tmp_path, "data/x/a.dat")
    (tmp_path / "train").symlink_to("data", target_is_directory=True)
    (tmp_path / "b.dat").symlink_to("data/x/a.dat")
    assert [v["sequence"] for v in Tree(tmp_path).matches("train/{sequence}/a.dat")] == ["x"]
    assert Tree(tmp_path).find("b.dat").read_text() == "data/x/a.dat"


def test_a_link_to_a_folder_above_does_not_go_round_for_ever(tmp_path):
    fill(tmp_path, "train/x/a.dat")
    (tmp_path / "train/x/again").symlink_to(tmp_path / "train", target_is_directory=True)
    with pytest.raises(FormatError, match="which it is in"):
        list(Tree(tmp_path).matches("train/{sequence}/a.dat"))


def test_the_root_must_be_a_folder(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("absent", "pipe"):
        with pytest.raises(FormatError, match="no such folder"):
            Tree(tmp_path / name)


def test_a_star_for_the_ending_may_stand_for_known_endings_only(tmp_path):
    fill(tmp_path, "s/a.PNG", "s/a.txt", "s/b.jpg", "s/c.txt")
    tree = Tree(tmp_path)
    assert [found["frame"] for found in tree.matches("s/{frame}.*", (".png", ".jpg"))] == ["a", "b"]
    assert tree.find("s/a.*", (".png", ".jpg")) == tmp_path / "s/a.PNG"
    assert tree.find("s/c.*", (".png", ".jpg")) is None
    assert tree.find("s/c.*") == tmp_path / "s/c.txt"


def test_a_file_that_differs_in_the_case_of_its_ending_is_refused(tmp_path):
    fill(tmp_path, "s/a.png", "s/b.Png", "s/sub/c.PNG")
    with pytest.raises(FormatError, match=r"b\.Png: its ending is not \.png"):
        list(Tree(tmp_path).matches("s/{frame}.png"))


def test_links_to_themselves_and_bottomless_folders_are_refused(tmp_path):
    fill(tmp_path, "a/s/x.dat", "b/s/x.dat")
    (tmp_path / "a/loop").symlink_to("loop")
    with pytest.raises(FormatError, match="cannot be followed"):
        list(Tree(tmp_path).matches("a/{sequence}/x.dat"))
    with pytest.raises(UsageError, match="cannot be followed"):
        Tree(tmp_path).find("a/loop")
    tmp_path.joinpath("b", *"d" * 200).mkdir(parents=True)
    with pytest.raises(FormatError, match="more than 64 folders deep"):
        list(Tree(tmp_path).matches("b/{sequence}/x.dat"))
