"""What a bulk's inputs are: pictures in folders, lists, tables and tars, and videos.

Nothing here holds more than one folder's, file's or picture's worth of memory.
"""

import dataclasses
import itertools
import math
import os
import tarfile
from collections.abc import Iterator, Sequence
from glob import iglob
from pathlib import Path, PurePosixPath

from er_jax.bulk.tables import pictures_of_table, table_entries
from er_jax.photographs.photograph import PICTURE_ENDINGS
from er_jax.utils.errors import BadImageError, ConfigError, DataError, NotFoundError
from er_jax.video.frames import VIDEO_ENDINGS, Frames

PICTURE, TABLE, TAR, VIDEO, UNREADABLE = "picture", "table", "tar", "video", "unreadable"
TAR_ENDINGS = (".tar", ".tar.gz", ".tgz")
LIST_ENDINGS = (".txt", ".lst")
TABLE_ENDING = ".parquet"
VIDEO_FRAMES = 9000
"""Frames of a video that are one piece of work: five minutes of 30 a second."""
SORTED = 100_000
"""Files of a folder that are taken by their names; those beyond, as the disk gives them."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A piece of an input.

    Attributes:
      kind: one of this module's five.
      source: path of the file.
      first: row of a table, or frame of a video, that it begins with.
      count: rows, or frames, or pictures; 0: all that there are.
      column: of a table.
      reason: why it is unreadable.
    """

    kind: str
    source: str
    first: int = 0
    count: int = 1
    column: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class Given:
    """A picture to be read, or what cannot be.

    Attributes:
      source: path of the file.
      key: which picture of that file; empty where it is one.
      data: the picture's bytes; None: they are in the file.
      reason: why there is none; empty: there is one.
    """

    source: str
    key: str = ""
    data: bytes | None = None
    reason: str = ""


def entries_of(inputs: Sequence[str], column: str | None = None) -> Iterator[Entry]:
    """The pieces of all inputs.

    Folders are searched with all that is in them, links to folders aside. Files are taken for what
    their endings say; in folders those that say nothing are left out.

    Args:
      inputs: folders, files, or patterns with `*`, `?`, `[` or `**`.
      column: of the tables; None: the one that can be meant.

    Raises:
      NotFoundError: one is not there, or no file has that pattern.
      ConfigError: one is an address of another machine, or a table whose column must be told.
    """
    for text in inputs:
        if "://" in text:
            raise ConfigError(f"{text}: only files can be read: mount or copy what is elsewhere")
        path = Path(text)
        if path.is_dir():
            yield from _of_folder(path, column)
        elif path.exists():
            yield from _of_file(path, column, named=True)
        elif any(sign in text for sign in "*?["):
            found = (Path(name) for name in iglob(text, recursive=True))  # noqa: PTH207 - lazily
            files = (path for path in found if path.is_file())
            first = next(files, None)
            if first is None:
                raise NotFoundError(f"{text}: no file has such a name")
            for path in itertools.chain([first], files):
                yield from _of_file(path, column, named=True)
        else:
            raise NotFoundError(f"{text}: no such file or folder")


def pictures_of(entry: Entry) -> Iterator[Given]:
    """The pictures of an entry, which is no video; what cannot be read is among them, as such."""
    if entry.kind == PICTURE:
        yield Given(entry.source)
    elif entry.kind == TABLE:
        rows = pictures_of_table(entry.source, entry.column, entry.first, entry.count)
        for key, data, file, reason in rows:
            # The picture of a row that names a file is that file's.
            yield Given(file or entry.source, "" if file else key, data, reason)
    elif entry.kind == TAR:
        yield from _of_tar(entry.source)
    else:
        yield Given(entry.source, reason=entry.reason)


def _of_folder(folder: Path, column: str | None) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as found:
            here = sorted(itertools.islice(found, SORTED), key=lambda entry: entry.name)
            for entry in itertools.chain(here, found):
                if entry.is_dir(follow_symlinks=False):
                    yield from _of_folder(Path(entry.path), column)
                elif not entry.is_dir():
                    yield from _of_file(Path(entry.path), column, named=False)
    except OSError as error:
        yield Entry(UNREADABLE, str(folder), reason=f"the folder cannot be listed ({error})")


def _of_file(path: Path, column: str | None, *, named: bool) -> Iterator[Entry]:
    name = path.name.lower()
    if name.endswith(PICTURE_ENDINGS):
        yield Entry(PICTURE, str(path))
    elif name.endswith(TAR_ENDINGS):
        yield Entry(TAR, str(path), count=0)
    elif name.endswith(VIDEO_ENDINGS):
        yield from _of_video(path)
    elif name.endswith(TABLE_ENDING):
        try:
            for first, count, used in table_entries(path, column):
                yield Entry(TABLE, str(path), first, count, used)
        except DataError as error:
            yield Entry(UNREADABLE, str(path), reason=str(error))
    elif named and name.endswith(LIST_ENDINGS):
        yield from _of_list(path, column)
    elif named:
        yield Entry(PICTURE, str(path))


def _of_list(path: Path, column: str | None) -> Iterator[Entry]:
    """Of a text file with a path a line, seen from its own folder."""
    with path.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            name = line.rstrip("\r\n")
            if not name.strip():
                continue
            file = path.parent / name
            ending = file.name.lower()
            if ending.endswith((*TAR_ENDINGS, *VIDEO_ENDINGS, TABLE_ENDING)):
                yield from _of_file(file, column, named=False)
            else:
                yield Entry(PICTURE, str(file))


def _of_video(path: Path) -> Iterator[Entry]:
    try:
        count = Frames.of(path).count
    except BadImageError as error:
        yield Entry(UNREADABLE, str(path), reason=str(error))
        return
    pieces = max(math.ceil(count / VIDEO_FRAMES), 1)
    for piece in range(pieces):
        last = piece == pieces - 1  # the count may be a little off
        yield Entry(VIDEO, str(path), piece * VIDEO_FRAMES, 0 if last else VIDEO_FRAMES)


def _of_tar(source: str) -> Iterator[Given]:
    number = 0
    reason = ""
    try:
        with tarfile.open(source, "r|*") as tar:
            for member in tar:
                number += 1
                if member.isfile() and _is_picture(member.name):
                    file = tar.extractfile(member)
                    assert file is not None, "members that are files have contents"
                    yield Given(source, member.name, file.read())
        if source.lower().endswith(".tar") and not _has_its_end(Path(source)):
            reason = "no mark of its end"
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = str(error)
    if reason:
        yield Given(source, reason=f"the tar is cut short after {number} members ({reason})")


def _has_its_end(path: Path) -> bool:
    """Whether a tar ends with an empty block: of one cut between members Python says nothing."""
    with path.open("rb") as file:
        file.seek(-tarfile.BLOCKSIZE, os.SEEK_END)
        return not any(file.read())


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).name.lower().endswith(PICTURE_ENDINGS)
