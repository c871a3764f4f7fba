"""What is known of a frame is not worked out again."""

from tests.model.evaluation.pairs import candidate, frames, shot


def test_a_measure_is_asked_once_a_candidate() -> None:
    sharp, image = frames()
    asked = []

    def measure(made, taken) -> float:
        asked.append((made, taken))
        return float(len(asked))

    first, second, taken = candidate(image), candidate(image), shot(sharp)
    assert [first.measured(measure, taken) for _ in range(3)] == [1, 1, 1]
    assert second.measured(measure, taken) == 2
    assert asked[0][0] is first and asked[0][1] is taken
