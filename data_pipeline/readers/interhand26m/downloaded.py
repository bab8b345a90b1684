"""Which images of a split lie on the disk, and which captures were asked for."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.readers.interhand26m.files import Images
from data_pipeline.readers.interhand26m.schema import key_text
from er_jax.utils.errors import DataError


class ImagesOnDisk:
    """The names of a split's image files; each folder is listed once, and no file looked at."""

    def __init__(self, image_dir: Path, captures: Collection[str] | None = None):
        """Remembers where to look.

        Args:
          image_dir: that the names are relative to.
          captures: to look for; None: all.
        """
        self._image_dir = image_dir
        self._captures = captures

    def identity(self) -> str:
        """What tells these files from others: how many there are, and a digest of their names."""
        digest = hashlib.sha256()
        for folder in sorted(self._listing):
            digest.update(f"{folder}\n{sorted(self._listing[folder])}\n".encode())
        count = sum(len(names) for names in self._listing.values())
        return f"{count} files, SHA-256 of their names {digest.hexdigest()}"

    def have(self, file_names: np.ndarray) -> np.ndarray:
        """Says of each name, bytes, whether the file is there."""
        there = np.empty(len(file_names), bool)
        none: frozenset[str] = frozenset()
        for row, file_name in enumerate(file_names.tolist()):
            folder, _, name = os.fsdecode(file_name).rpartition("/")
            there[row] = name in self._listing.get(folder, none)
        return there

    @functools.cached_property
    def _listing(self) -> Mapping[str, frozenset[str]]:
        """The files' names by folder; one string for a name that many folders have."""
        listing: dict[str, frozenset[str]] = {}
        shared: dict[str, str] = {}
        pending = [""]
        while pending:
            folder = pending.pop()
            names = []
            for entry in self._entries(folder):
                if entry.is_dir():
                    pending.append(f"{folder}/{entry.name}" if folder else entry.name)
                else:
                    names.append(shared.setdefault(entry.name, entry.name))
            if names:
                listing[folder] = frozenset(names)
        return listing

    def _entries(self, folder: str) -> Sequence[os.DirEntry[str]]:
        path = self._image_dir / folder
        try:
            with os.scandir(path) as entries:
                return [entry for entry in entries if folder or self._wanted(entry.name)]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise DataError(
                f"{path} cannot be listed ({error.strerror}), which --existing_only needs. Make "
                "it readable."
            ) from None

    def _wanted(self, name: str) -> bool:
        """Whether a folder beside the captures' is to be looked into."""
        capture = name.removeprefix("Capture")
        return self._captures is None or capture == name or key_text(capture) in self._captures


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which images of a split were chosen, by image: `Images`' rows."""

    captures: Sequence[str] | None
    chosen: np.ndarray
    """Of a capture that was asked for."""
    there: np.ndarray | None
    """Its file is there; None: not looked at."""
    capture: np.ndarray
    """Row into `names`."""
    names: Sequence[str]

    @classmethod
    def of(
        cls, images: Images, captures: Sequence[str] | None, on_disk: ImagesOnDisk | None
    ) -> "Choice":
        """The choice that `--captures` and `--existing_only` make."""
        rows, capture = np.unique(images.text["capture"], return_inverse=True)
        names = [images.names[row].decode() for row in rows]
        asked = np.array([captures is None or name in captures for name in names], bool)
        there = None if on_disk is None else on_disk.have(images.file_name)
        return cls(captures, asked[capture], there, capture, names)

    def rules(self) -> dict[str, np.ndarray]:
        """The images that each rule drops."""
        rules = {}
        if self.captures is not None:
            rules[f"not in captures {', '.join(self.captures)}"] = ~self.chosen
        if self.there is not None:
            rules["not downloaded"] = ~self.there
        return rules

    def report(self) -> list[dict[str, Any]]:
        """Images of each capture and how many of them are there, as plain JSON."""
        return [
            {
                "capture": self.names[row],
                "images": int(mine.sum()),
                "asked_for": bool(self.chosen[mine].all()),
                **({} if self.there is None else {"there": int(self.there[mine].sum())}),
            }
            for row in sorted(range(len(self.names)), key=lambda row: in_order(self.names[row]))
            for mine in [self.capture == row]
        ]

    @property
    def kept(self) -> np.ndarray:
        """The images that no rule drops."""
        return self.chosen if self.there is None else self.chosen & self.there

    def part(self, image: np.ndarray) -> str | None:
        """Which part of the annotations is chosen, by the image of each; None: all are."""
        kept = self.kept
        if kept[image].all():
            return None
        captures = {self.names[row] for row in np.unique(self.capture[kept])}
        return (
            f"captures {', '.join(sorted(captures, key=in_order))}; {kept[image].sum():,} of "
            f"{len(image):,} annotations"
        )


def capture_note(capture: Mapping[str, Any]) -> str:
    """A line on one entry of `Choice.report`."""
    name, images = capture["capture"], f"{capture['images']:,} images"
    if not capture["asked_for"]:
        return f"capture {name}: not asked for, {images}"
    if "there" not in capture:
        return f"capture {name}: {images}"
    return f"capture {name}: {capture['there']:,} of {images} there"


def in_order(name: str) -> tuple[bool, int, str]:
    """Sorts numbers as such, before words."""
    return not name.isdigit(), int(name) if name.isdigit() else 0, name
