from fractions import Fraction

from pipeline.frame_spans import frames_span


def test_whole_spike_frames_begin_at_the_nearest_nanosecond():
    span = frames_span(1, 3, Fraction(1920), residual_ns=5)
    assert (span.start, span.stop, span.start_ns, span.stop_ns, span.residual_ns) == (
        1,
        3,
        520_833,
        1_562_500,
        5,
    )
