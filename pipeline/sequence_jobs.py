"""What a recording becomes in the store: the arrays of its sequence, and the attributes of its group."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.blocks import GreyFromSpikes, Images, PackedSpikes
from pipeline.config import to_plain
from pipeline.copies import refuse_copied_pixels
from pipeline.errors import StoreError
from pipeline.examine import Examined
from pipeline.fingerprints import fingerprint_of
from pipeline.frames import FramePlace, file_of
from pipeline.manifest import Manifest
from pipeline.storage.building import ArrayJob
from pipeline.storage.nodes import BUILDING, Nodes
from pipeline.storage.pieces import BlockSource
from pipeline.storage.shards import ArrayLayout, Codec, frames_layout, spikes_layout
from pipeline.store import TABLES
from pipeline.tables import Lit, table_jobs
from pipeline.video import VideoFrame

IMAGE_AXES = ("frame", "channel", "row", "column")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceJobs:
    """A recording on its way into the store.

    Attributes:
        sources: name below the root of the data set, size in bytes and time of change in ns of each input file: what
            shows, without reading it, that it is still the same.
        jobs: its arrays.
    """

    examined: Examined
    sources: tuple[tuple[str, int, int], ...]
    jobs: tuple[ArrayJob, ...]

    @property
    def key(self) -> str:
        return self.examined.key

    @property
    def arrays(self) -> tuple[str, ...]:
        return tuple(job.array.name for job in self.jobs)

    def attributes(self) -> dict[str, Any]:
        """What the sequence's group carries."""
        one = self.examined
        camera = one.recording.camera
        return ({} if camera is None else {"camera": camera}) | {
            "source_name": one.recording.source_name,
            "frames": list(one.alignment.frames),
            "positions": one.alignment.positions.tolist(),
            "arrays": list(self.arrays),
            "spike_shape": list(one.spike_shape),
            "format": to_plain(one.files.format),
            "checks": one.checks,
            "sources": self.sources,
            "alignment_offset": one.offset,
            "residual_ns": one.alignment.residual_ns.tolist(),
            "left_out": list(one.recording.left_out),
            "timing": dict(one.alignment.timing),
            "set_aside": [dataclasses.asdict(problem) for problem in one.alignment.problems],
        }

    def is_described(self, nodes: Nodes) -> bool:
        """Whether its group carries these attributes."""
        try:
            found = nodes.find(self.key).attributes if self.key in nodes else None
        except StoreError:
            return False
        return found == json.loads(json.dumps(self.attributes()))

    def refuse_copies(self, attributes: Callable[[Path], dict[str, Any]]) -> None:
        """Refuse sharp frames with the pixels of the blurry ones, once both are built.

        Args:
            attributes: reads those of an array.

        Raises:
            FormatError: there is one.
        """
        arrays = {job.array.name: job.array for job in self.jobs}
        if not {"blurry", "sharp"} <= set(arrays) or not any(self.examined.blurry_paths):
            return
        sums = [attributes(arrays[name])["pixels_crc32c"] for name in ("blurry", "sharp")]
        refuse_copied_pixels(*sums, self.examined.sharp_paths)


def sequence_jobs(
    raw: Path, out: Path, one: Examined, manifest: Manifest, codec: Codec = "none"
) -> SequenceJobs:
    """Plan the arrays of one recording found below `raw`, for the store `out`."""
    frames, sequence = len(one.alignment.frames), out / one.key
    height, width = one.spike_shape
    sources = _sources(raw, one)
    inputs = fingerprint_of([sources, to_plain(one.files.format), one.files.lengths])
    spikes = ArrayJob(
        array=sequence / "spikes",
        layout=spikes_layout((one.files.num_frames, height, -(-width // 8)), codec=codec),
        source=PackedSpikes(files=one.files),
        inputs=inputs,
    )
    images = functools.partial(image_job, frames_layout((frames, 3, *one.rgb_shape), IMAGE_AXES, codec=codec))
    jobs = [spikes]
    if manifest.blurry_from_spikes is not None:
        jobs.append(images(sequence / "blurry", *_grey(one, manifest.blurry_from_spikes, spikes.key)))
    elif any(one.blurry_paths):
        jobs.append(images(sequence / "blurry", *_files(one, one.blurry_paths, inputs)))
    if any(one.sharp_paths):
        jobs.append(images(sequence / "sharp", *_files(one, one.sharp_paths, inputs)))
    tables = {name: getattr(one.alignment, name) for name in TABLES}
    jobs += table_jobs(sequence, tables, _lit(one, out, jobs))
    return SequenceJobs(examined=one, sources=sources, jobs=tuple(jobs))


def _lit(one: Examined, out: Path, jobs: Sequence[ArrayJob]) -> Lit | None:
    """What fitting the RGB frames to their spikes needs; frames made from the spikes are not fitted to them."""
    keys = {job.array.name: job.key for job in jobs}
    if not any(one.blurry_paths):
        return None
    inputs = keys["spikes"], keys["blurry"]
    places = out / BUILDING / one.key, out / one.key
    return Lit(places=places, width=one.spike_shape[1], scale=one.scale, inputs=inputs)


def _sources(raw: Path, one: Examined) -> tuple[tuple[str, int, int], ...]:
    images = (file_of(place) for place in (*one.blurry_paths, *one.sharp_paths) if place is not None)
    states = [(path, path.stat()) for path in dict.fromkeys((*one.files.paths, *images))]
    return tuple((path.relative_to(raw).as_posix(), s.st_size, s.st_mtime_ns) for path, s in states)


def _files(
    one: Examined, places: tuple[FramePlace | None, ...], inputs: str
) -> tuple[BlockSource, str, dict[str, Any]]:
    """Images as they are on disk: their source, its fingerprint, and how they are encoded where that is a video."""
    video = next((place.video for place in places if isinstance(place, VideoFrame)), None)
    about = {"video": video.encoding} if video else {}
    return Images(paths=places, height=one.rgb_shape[0], width=one.rgb_shape[1]), inputs, about


def _grey(one: Examined, threshold: float, spikes: str) -> tuple[BlockSource, str, dict[str, Any]]:
    """Blurry frames made from the spikes: their source, its fingerprint, and what to say of them."""
    spans = tuple((int(a), int(b)) for a, b in one.alignment.exposure)
    source = GreyFromSpikes(files=one.files, spans=spans, threshold=threshold, scale=one.scale)
    return source, *grey_facts(spikes, spans, threshold)


def grey_facts(spikes: str, spans: Sequence[tuple[int, int]], threshold: float) -> tuple[str, dict[str, Any]]:
    """Of blurry frames made from the spikes of a job with the key `spikes`: fingerprint, and what to say of them."""
    about = {"made_from": f"mean spike rate of the exposure x threshold {threshold}"}
    return fingerprint_of([spikes, spans, about]), about


def image_job(
    layout: ArrayLayout, array: Path, source: BlockSource, inputs: str, about: dict[str, Any] | None = None
) -> ArrayJob:
    """Plan an array of images, whose pixels are summed up frame by frame."""
    return ArrayJob(
        array=array,
        layout=layout,
        source=source,
        inputs=inputs,
        attributes=about or {},
        summarise=_join_sums,
    )


def _join_sums(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    return {"pixels_crc32c": [value for summary in summaries for value in summary["pixels_crc32c"]]}
