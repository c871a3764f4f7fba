"""What may be gone on with."""

import json

import pytest

from model.deblurring.record import RECORD, begin_folder, begin_video, input_facts, write_record
from pipeline.errors import UsageError

IDENTITY = {
    "checkpoint": {"digest": "d", "step": 3},
    "inputs": {"video": {"bytes": 7}},
    "settings": {"tile": "auto"},
}


def test_a_new_or_empty_folder_begins_anew(tmp_path):
    assert begin_folder(tmp_path / "new", IDENTITY, resume=False) is None
    assert begin_folder(tmp_path, IDENTITY, resume=False) is None
    assert not (tmp_path / "new").exists()


def test_a_folder_of_the_same_restoration_is_gone_on_with_if_asked(tmp_path):
    write_record(tmp_path / RECORD, IDENTITY | {"finished": False, "tiling": {"tile": 64}})
    assert begin_folder(tmp_path, IDENTITY, resume=True)["tiling"] == {"tile": 64}
    with pytest.raises(UsageError, match="not empty") as caught:
        begin_folder(tmp_path, IDENTITY, resume=False)
    assert "--resume" in caught.value.fix


def test_a_folder_of_another_restoration_is_refused_with_what_differs(tmp_path):
    write_record(tmp_path / RECORD, IDENTITY)
    other = IDENTITY | {"checkpoint": {"digest": "e", "step": 3}, "settings": {"tile": 64}}
    with pytest.raises(UsageError) as caught:
        begin_folder(tmp_path, other, resume=True)
    assert 'checkpoint.digest: "d", now "e"' in caught.value.problem
    assert 'settings.tile: "auto", now 64' in caught.value.problem
    assert "step" not in caught.value.problem


@pytest.mark.parametrize(
    ("content", "words"), [(None, "not the folder of spk deblur"), ("{", "damaged"), ("[]", "damaged")]
)
def test_a_folder_of_something_else_is_not_gone_on_with(tmp_path, content, words):
    (tmp_path / ("other" if content is None else RECORD)).write_text(content or "x")
    with pytest.raises(UsageError, match=words):
        begin_folder(tmp_path, IDENTITY, resume=True)


def test_nothing_is_not_gone_on_with_and_files_are_no_folders(tmp_path):
    with pytest.raises(UsageError, match="nothing here"):
        begin_folder(tmp_path, IDENTITY, resume=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        begin_folder(tmp_path / "file", IDENTITY, resume=False)


def test_videos_are_neither_replaced_nor_gone_on_with(tmp_path):
    begin_video(tmp_path / "a.mkv", tmp_path / "b.mkv", resume=False)
    (tmp_path / "b.mkv").write_text("x")
    with pytest.raises(UsageError, match=r"b\.mkv: is there already"):
        begin_video(tmp_path / "a.mkv", tmp_path / "b.mkv", resume=False)
    with pytest.raises(UsageError, match="cannot be gone on with"):
        begin_video(tmp_path / "a.mkv", resume=True)


def test_inputs_are_known_by_size_and_time(tmp_path):
    file, folder = tmp_path / "a.dat", tmp_path / "frames"
    file.write_bytes(b"1234")
    folder.mkdir()
    (folder / "1.png").write_bytes(b"12")
    before = [input_facts(file), input_facts(folder)]
    assert json.loads(json.dumps(before)) == before and before[0]["bytes"] == 4 and before[1]["files"] == 1
    assert [input_facts(file), input_facts(folder)] == before
    (folder / "1.png").write_bytes(b"123")
    assert input_facts(folder) != before[1]
