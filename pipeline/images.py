"""RGB frames on disk: 8-bit PNG, JPEG, BMP and TIFF in, PNG out. Anything else is refused, not converted."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.errors import FormatError
from pipeline.files import atomic_file
from pipeline.inputs import require_file

FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 1 << 26
"""An image that declares more (8192 x 8192) is a mistake or an attack: it is refused before it is decoded."""
_ORIENTATION = 0x0112
_GREY = ("1", "L")
_COLOUR = ("RGB", "P")
_WITH_ALPHA = ("LA", "RGBA", "PA")


def read_rgb(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """Read an 8-bit image as (3, H, W) uint8; a grey one becomes three equal channels.

    Raises:
        FormatError: missing, damaged, truncated, not PNG, JPEG, BMP or TIFF, more than `max_pixels`, several
            pages, more than 8 bits per channel, really transparent, CMYK, or turned by an EXIF orientation.
    """
    with _opened(path, max_pixels) as image:
        _refuse_deep(path, image)
        image.load()
        if (turn := image.getexif().get(_ORIENTATION, 1)) != 1:
            raise FormatError(f"{path}: EXIF orientation {turn}: rotate the pixels and drop the tag")
        pixels = np.asarray(_to_eight_bit(path, image))
    if pixels.ndim == 2:
        pixels = np.broadcast_to(pixels[..., None], (*pixels.shape, 3))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) from the image's header, without decoding it.

    Raises:
        FormatError: as `read_rgb`, for what the header shows.
    """
    with _opened(path, max_pixels) as image:
        return image.height, image.width


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write (3, H, W) or (H, W) uint8 as a PNG, whole or not at all.

    Raises:
        ValueError: another shape or type.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[0] == 3)):
        raise ValueError(
            f"image of shape {image.shape} and type {image.dtype}, expected (3, H, W) or (H, W) uint8"
        )
    pixels = image if image.ndim == 2 else image.transpose(1, 2, 0)
    with atomic_file(Path(path)) as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=4)


class _ImageFile(io.BufferedReader):
    """A file that sets aside no more memory for a read than it has bytes, whatever a damaged chunk's length says."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(io.FileIO(path))
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, max(0, self._size - self.tell())))


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    size = require_file(path, "image")
    try:
        with _ImageFile(path, size) as file, Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise FormatError(f"{path}: {image.height}x{image.width} is more than {max_pixels} pixels")
            if _has_pages(image):
                raise FormatError(f"{path}: 2 pages or more, expected one image per file")
            yield image
    except (FormatError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything from KeyError to struct.error on damaged bytes
        problem = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"{path}: not a readable {', '.join(FORMATS)} image: {problem}") from error


def _has_pages(image: Image.Image) -> bool:
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)  # counting them all takes a second for every thousand
    except EOFError:
        return False
    return True


def _refuse_deep(path: Path, image: Image.Image) -> None:
    # Pillow halves 16-bit RGB to 8 bits without a word; only the raw mode of the undecoded tile tells.
    raw_modes = " ".join(str(tile[3]) for tile in image.tile)
    if "16" in raw_modes or "32" in raw_modes or image.mode[0] in "IF":
        raise FormatError(
            f"{path}: more than 8 bits per channel", "convert it to 8-bit PNG with a stated scale"
        )


def _to_eight_bit(path: Path, image: Image.Image) -> Image.Image:
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] < 255:
            raise FormatError(f"{path}: has transparent pixels", "flatten it onto its background first")
        return image.convert("RGB")
    if image.mode in _GREY:
        return image.convert("L")
    if image.mode in _COLOUR:
        return image.convert("RGB")
    raise FormatError(f"{path}: colour mode {image.mode}, expected grey or RGB", "convert it to RGB")
