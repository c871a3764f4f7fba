"""What the test of the pages' commands does other than a reader would: what is not run, and what is made smaller.

Commands run word for word, in a folder that holds what the pages name in capitals (`world.py`). Two things are added:
settings that make a command small, behind its own words and only where it does not set them itself (spikes of 24x32
for GoPro-spike, which is that small here); and with `--parts i/N` all N parts are built, as the page says that N jobs
do.
"""

from collections.abc import Iterable, Sequence

NOT_RUN = {
    "python3 -m venv": "makes an environment",
    ". .venv/bin/activate": "enters one",
    "pip install": "installs: .ci/run does it, from the README",
    "pytest": "the tests, of which this is one",
    "torchrun": "several GPUs; tests/cli/test_torchrun.py runs it with processes of a CPU",
    "spk ingest RAW -o STORE -m my_camera.yaml --scheduler": "a cluster; tests/pipeline/test_cluster.py starts one",
}
"""Beginnings of commands, with the reason why this test does not run them."""

SLOW = {
    "spk plan": "tries steps in processes of their own; tests/cli/test_plan.py runs it small",
    "--check-resume": "five trainings in processes of their own",
    "spk demo": "two trainings in processes of their own; tests/cli/test_demo.py runs it small",
    "spk inspect base": "counts a network of full size",
    "spk train base store=STORE network.memory_gb": "measures what a network keeps for backward",
    "spk simulate scenes -o RAW_THRESHOLDS": "films everything three times; tests/cli/test_simulate.py does it small",
    "spk doctor": "starts processes and tries disks; tests/cli/test_doctor.py does so",
    "--ablate": "restores a split several times; tests/cli/test_evaluate.py does so with a smaller one",
    "spk export": "traces a whole network, minutes; tests/cli/test_export.py does so with the smallest",
    "--profile": "the profiler of a network of full depth",
}
"""Beginnings and options of commands that run only with `pytest -m slow`."""

EXIT_CODES = {
    "spk align": {0, 4},
    "spk doctor": {0, 4},
    "spk compare": {0, 5},
}
"""Beginnings of commands that may end with other codes than 0, which the pages explain."""

_SMALL_NETWORK = (
    *("embed_dims=[4,4,4,4,4,4,4,4]", "depths=[1,1,1,1,1,1,1,1]", "num_heads=[1,1,1,1,1,1,1,1]"),
    *("window=[2,2,2]", "indep_reconsts=[]", "pa_frames=2", "deformable_groups=1"),
    *("spike_channels=[4,4,4,4]", "spike_heads=1", "fusion_heads=1"),
)
_SMALL_TRAINING = (
    *(
        "steps=2",
        "batch_size=1",
        "workers=1",
        "clip.num_frames=2",
        "clip.crop=16",
        "loss.perceptual_weight=0",
    ),
    *("optim.warmup_steps=1", "log_every=1", "checkpoint_every=2", "validate_every=2", "validate_crop=16"),
    *("sample_every=0", "histogram_every=0", "network.memory_gb=null"),
    *(f"network.{setting}" for setting in _SMALL_NETWORK),
)
_SMALL_RIG = ("rig.num_frames=3", "rig.exposure_frames=16", "rig.gap_frames=4")
_SMALL_SCENES = ("train=2", "val=1", "test=1", "height=48", "width=48", "objects=[1,1]", *_SMALL_RIG)
_DEMO_SCENES = (
    *("train=2", "val=1", "test=1", "height=64", "width=64"),  # enough to tell the geometry from
    *("rig.num_frames=3", "rig.exposure_frames=32", "rig.gap_frames=16"),
)
_SMALL_VIDEO = ("reduce=1", "height=48", "width=48", *_SMALL_RIG)
_SMALL_GOPRO = ("spikes.height=24", "spikes.width=32")


def small(words: Sequence[str]) -> list[str]:
    """A command with settings behind it that make it small, those that it sets itself left out."""
    match list(words):
        case ["spk", "train", config, *_] if config.endswith((".json", "/config.yaml")):
            settings = ()  # it was made small when it was written
        case ["spk", "train" | "plan", *_]:
            settings = _SMALL_TRAINING
        case ["spk", "demo", *_]:
            settings = (*_SMALL_TRAINING, *(f"scenes.{setting}" for setting in _DEMO_SCENES))
        case ["spk", "simulate", "scenes", *_]:
            settings = _SMALL_SCENES
        case ["spk", "simulate", *_]:
            settings = _SMALL_VIDEO
        case ["spk", "ingest", "GOPRO", *_]:
            settings = _SMALL_GOPRO
        case _:
            settings = ()
    own = {word.partition("=")[0] for word in words if "=" in word}
    return [*words, *(setting for setting in settings if setting.partition("=")[0] not in own)]


def parts(words: Sequence[str]) -> list[list[str]]:
    """The command, or with `--parts i/N` the commands of all N parts."""
    number = next((k + 1 for k, word in enumerate(words) if word == "--parts"), None)
    if number is None:
        return [list(words)]
    total = int(words[number].partition("/")[2])
    return [[*words[:number], f"{part}/{total}", *words[number + 1 :]] for part in range(1, total + 1)]


def matches(words: Sequence[str], entries: Iterable[str]) -> str | None:
    """The entry that is about this command: its beginning, or an option in it."""
    text = " ".join(words)
    for entry in entries:
        if text.startswith(entry) or (entry.startswith("--") and entry in words):
            return entry
    return None


def expected(words: Sequence[str]) -> set[int]:
    """The exit codes that are right."""
    entry = matches(words, EXIT_CODES)
    return EXIT_CODES[entry] if entry else {0}
