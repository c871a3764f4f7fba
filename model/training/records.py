"""What a session writes into its run folder: curves, pictures, logs, checkpoints."""

import contextlib
import math
from collections.abc import Callable
from functools import partial

from model.training.diagnosis import require_finite
from model.training.events import Listener, Milestone
from model.training.guarded import guarded_threads
from model.training.hints import Hints, reading_of
from model.training.metrics_file import MetricsFile
from model.training.optim import learning_rates
from model.training.preparation import Prepared
from model.training.progress_picture import ProgressPicture
from model.training.provenance import generator_digest
from model.training.run_folder import RunFolder
from model.training.runlog import LogLines
from model.training.samples import SamplePictures, examples
from model.training.skipped import SkippedSteps
from model.training.step_clips import StepClips
from model.training.tensorboard_log import TensorBoardLog
from model.training.validation import Validator
from pipeline.config import to_plain
from pipeline.reader_times import ReaderTimes
from pipeline.yaml_files import dump_yaml


def listeners_of(
    stack: contextlib.ExitStack,
    prepared: Prepared,
    folder: RunFolder,
    validator: Validator,
    clips: StepClips,
    times: ReaderTimes,
) -> list[Listener]:
    """Those that write the run folder, for the main process.

    Args:
        stack: closes their files.
        validator: has the clips that pictures are made of.
        clips: names the clips of steps that were left out.
        times: of the threads that read clips.
    """
    config, learner, run, first = prepared.config, prepared.learner, folder.path, prepared.first
    stack.enter_context(guarded_threads())
    metrics = MetricsFile(run / "metrics.jsonl", first)
    text, rates = dump_yaml(to_plain(config)), partial(learning_rates, learner.optimizer)
    board = TensorBoardLog(run / "tensorboard", first, config=text, rates=rates)
    picture = ProgressPicture(run)
    for opened in (picture, metrics, board):
        stack.enter_context(contextlib.closing(opened))
    assert learner.watch
    learner.watch.show = board.show_layers
    source = prepared.sources[0]
    step_clips = config.batch_size * config.optim.accumulate * learner.place.world
    reading = reading_of(
        prepared.store,
        config.voxels or "",
        workers=config.workers,
        epoch_steps=len(source) // step_clips,
    )
    every = {"validate_every": config.validate_every, "checkpoint_every": config.checkpoint_every}
    hints = Hints(reading, times, start=first, **every)
    listeners: list[Listener] = [LogLines(), hints, metrics, board, SkippedSteps(clips, metrics.write)]
    if config.sample_every:
        shown = examples(validator, source, config.sample_clips, config.seed)
        listeners.append(SamplePictures(run / "samples", shown, learner.restore, board.show))
    return [*listeners, picture]


def saver(prepared: Prepared, folder: RunFolder) -> Callable[[Milestone], None]:
    """A function that writes a checkpoint; every process calls it, and the main one writes.

    It raises TrainingError where weights or moments are not finite, and OSError where the disk is full or fails.
    """
    learner, header = prepared.learner, prepared.header()

    def save(milestone: Milestone) -> None:
        tensors = learner.tensors()
        require_finite(tensors, milestone.step)
        loss = milestone.loss
        changing = {
            "step": milestone.step,
            "loss": loss if loss is not None and math.isfinite(loss) else None,
            "best": milestone.best._asdict() if milestone.best else None,
            "skipped": milestone.skipped,
            "skipped_in_a_row": milestone.skipped_in_a_row,
            "look_due": milestone.look_due,
            "learner": learner.plain(),
            "rng": {**header["rng"], "state": generator_digest(learner.place)},
        }
        if learner.place.is_main:
            folder.checkpoints.save(tensors, {**header, **changing}, best=milestone.is_best)

    return save
