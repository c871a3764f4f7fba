"""How it was made: complete, and escaped."""

from model.report.making import making


def test_command_fingerprints_versions_and_configs_are_there(made, read_html, hostile):
    elements = read_html(making(made()[0].provenance))
    for text in (
        f"spk evaluate '{hostile}'",
        "f00d",
        "sha256:1",
        "abc",
        "2.13",
        "averaged weights",
        "lr: 0.0002",
    ):
        assert text in elements.text
    assert elements.open == [] and "script" not in elements.counts
    assert elements.counts["details"] == 3  # settings, and the config of each network
