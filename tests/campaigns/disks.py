"""Disks of a few megabytes that a test may fill, cut the power of, or forbid writing to."""

import contextlib
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2
"""What is not yet on the disk is lost, and so is what the journal has in memory only."""


def mount(*words: object) -> None:
    """Mount something, or skip the test where that is not allowed."""
    command = ["mount", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True) if os.geteuid() == 0 else None
    if done is None or done.returncode:
        pytest.skip(
            f"{' '.join(command[:3])} needs root and loop devices: {done.stderr if done else 'not root'}"
        )


def unmount(place: Path) -> None:
    subprocess.run(["umount", str(place)], check=True)


class PowerDisk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, folder: Path, megabytes: int = 24) -> None:
        self.place = folder / "disk"
        self._image = folder / "image"
        self.place.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True)
        mount("-o", "loop", self._image, self.place)

    def sync(self) -> None:
        """Write everything down, as it is after a quiet minute."""
        subprocess.run(["sync", "-f", str(self.place)], check=True)

    def cut_power(self) -> None:
        """From here on, nothing gets to the disk any more, not even what was written a moment ago without a sync."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def start_again(self) -> None:
        """What a reboot does: the file system is mounted anew, from its journal."""
        unmount(self.place)
        mount("-o", "loop", self._image, self.place)


@contextlib.contextmanager
def power_disk(folder: Path) -> Iterator[PowerDisk]:
    disk = PowerDisk(folder)
    try:
        yield disk
    finally:
        unmount(disk.place)


@contextlib.contextmanager
def memory_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system in memory that holds so much and no more."""
    place.mkdir(parents=True, exist_ok=True)
    mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place)
    try:
        yield place
    finally:
        unmount(place)


def enlarge(place: Path, kilobytes: int) -> None:
    """Make space on a disk in memory."""
    subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(place)], check=True)


@contextlib.contextmanager
def read_only(what: Path, place: Path) -> Iterator[Path]:
    """A folder, mounted a second time without the right to write, which binds root as well."""
    place.mkdir(parents=True, exist_ok=True)
    mount("--bind", what, place)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        yield place
    finally:
        unmount(place)
