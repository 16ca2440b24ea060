"""Disks that are full or cannot be written, really: what a store's process runs into, and what ends it."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest


class Trouble(Protocol):
    """Something that keeps a disk from being written, for a while."""

    folder: Path
    """Where the store is."""

    def begin(self, pid: int) -> None:
        """Nothing can be written any more."""
        ...

    def end(self, pid: int) -> None:
        """It can again."""
        ...


def do_or_skip(*command: str | Path) -> None:
    """Run a system tool; skip the test where this user or this machine may not."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"needs {command[0]}, which is not installed")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"needs leave to {' '.join(map(str, command))}: {error.stderr.strip()}")


@contextmanager
def mounted(folder: Path, *arguments: str | Path) -> Iterator[Path]:
    folder.mkdir()
    do_or_skip("mount", *arguments, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607 - the system's


class FullDisk:
    """A file system without a free byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, pid: int) -> None:
        del pid
        with (self.folder / "ballast").open("wb", buffering=0) as ballast:
            size = 1 << 20
            while size:
                try:
                    ballast.write(bytes(size))
                except OSError:  # as much does not fit any more
                    size //= 2
        with pytest.raises(OSError, match="No space left"):
            (self.folder / "probe").write_bytes(b"x")

    def end(self, pid: int) -> None:
        del pid
        (self.folder / "ballast").unlink()


class FileLimit:
    """A bound on the size of files, at what the journal has: the only full disk without a mount."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, pid: int) -> None:
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = (self.folder / "crash.db-wal").stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, most))

    def end(self, pid: int) -> None:
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


class ImmutableFiles:
    """Files that nobody may write, not even root, and not even who has them open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _files(self) -> list[Path]:
        return [self.folder / "crash.db", self.folder / "crash.db-wal"]

    def begin(self, pid: int) -> None:
        del pid
        do_or_skip("chattr", "+i", *self._files())

    def end(self, pid: int) -> None:
        del pid
        do_or_skip("chattr", "-i", *self._files())


class FailedFileSystem:
    """A file system that found an error in itself and went read-only under all that have files open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        image = folder.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(64 << 20)
        do_or_skip("mkfs.ext4", "-q", image)
        self._image = image
        folder.mkdir()
        self._mount()

    def _mount(self) -> None:
        do_or_skip("mount", "-o", "loop,errors=remount-ro", self._image, self.folder)
        self._device = self.folder.stat().st_dev

    def begin(self, pid: int) -> None:
        del pid
        loop = Path(f"/sys/dev/block/{os.major(self._device)}:{os.minor(self._device)}").resolve().name
        trigger = Path(f"/sys/fs/ext4/{loop}/trigger_fs_error")
        if not trigger.exists():
            pytest.skip("needs ext4's trigger_fs_error")
        trigger.write_text("1")
        with pytest.raises(OSError, match="Read-only"):
            (self.folder / "probe").touch()

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=True)  # noqa: S607 - the system's

    def repair(self) -> None:
        """As an operator does: nothing may have it open."""
        self.unmount()
        fixed = subprocess.run(["fsck.ext4", "-fy", self._image], check=False, capture_output=True)  # noqa: S607 - the system's
        assert fixed.returncode in {0, 1}, fixed.stdout
        self._mount()
