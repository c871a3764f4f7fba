from pipeline.frame_order import FrameOrder

LISTED = {"2": 0, "9": 1, "10": 2}


def test_frames_that_only_the_log_knows_stand_among_the_others():
    order = FrameOrder(LISTED, {"1", "3", "11", "12"})
    assert sorted(order.place, key=order.place.get) == ["1", "2", "3", "9", "10", "11", "12"]
    assert order.unseen(()) == ((0, 1), (1, 1), (3, 2))


def test_missing_frames_are_counted_where_they_are_missing():
    order = FrameOrder(LISTED, {"3"})
    assert order.unseen([(order.place["3"], 4), (order.place["10"], 2)]) == ((1, 5), (2, 2))


def test_without_images_the_names_give_the_order():
    order = FrameOrder({}, {"10", "9", "a"})
    assert order.place == {"9": 0, "10": 1, "a": 2}
