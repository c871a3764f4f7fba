"""What the page's script is given: every frame with its scores, and JSON that stays where it is."""

import json
import math

from model.report.encoding import Encoded
from model.report.frames import frame_rows
from model.report.viewer import frame_data, pictures_json, sequence_options, to_script_json


def test_every_frame_has_its_scores_and_its_thumbnail(made):
    results, album = made(sequences=("a", "b"))
    data = frame_data(results, album, frame_rows(results))
    assert [method["title"] for method in data["methods"]][:5] == [
        *("Blurry input", "Restored", "Sharp", "Spikes", "Spike only")
    ]
    first = data["sequences"][0]
    assert (first["name"], first["frames"]) == ("a", 3)
    assert first["psnrs"]["restored"] == [33, 34, 35] and first["psnrs"]["blurry"] == [30, 31, 32]
    assert [(one["frame"], one["index"]) for one in first["thumbnails"]] == [
        (f"{i:06d}", i) for i in range(3)
    ]
    assert all(one["image"].startswith("data:image/jpeg;base64,") for one in first["thumbnails"])


def test_frames_without_a_score_or_identical_ones_are_told_apart(results_of, made):
    _, album = made(sequences=("a",))
    results = results_of({"a": {"restored": [30.0, math.inf, math.nan]}})
    data = frame_data(results, album, frame_rows(results))
    assert data["sequences"][0]["psnrs"] == {"restored": [30.0, "∞", None]}
    assert frame_data(*made(psnr=None), [])["sequences"][0]["psnrs"] == {}


def test_json_cannot_end_its_element(hostile):
    text = to_script_json({"name": hostile})
    assert "<" not in text and "&" not in text and json.loads(text) == {"name": hostile}
    frames = ((None, json.dumps({"sequence": hostile})), (None, "{}"))
    assert json.loads(pictures_json(Encoded(frames=frames, dropped=0, lossy_side=None))) == [
        {"sequence": hostile},
        {},
    ]


def test_sequences_can_be_chosen_by_name(made, read_html, hostile):
    elements = read_html(f"<select>{sequence_options(made()[0])}</select>")
    assert elements.counts["option"] == 2 and hostile in elements.text
