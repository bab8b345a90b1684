"""From what was seen to rows of tables, and a unit's tables to files that are there once."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from er_jax.bulk.seeing import Failed, Followed, Seen
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import blank, camera_of
from er_jax.utils.atomic_write import atomic_write
from er_jax.video.frames import Frames
from er_jax.video.observations import Observations, settled
from er_jax.video.parquet import pyarrow_module, rows_of, rows_of_pictures
from er_jax.video.reconstruct import fit_clip
from er_jax.video.smoothing import smooth
from er_jax.video.track import Clip

if TYPE_CHECKING:
    import pyarrow

HANDS, INPUTS, FAILED = "hands", "inputs", "failed"
"""Folders of the three tables; a unit's shard of hands is the last to come, and says it is done."""


@dataclasses.dataclass(frozen=True)
class Made:
    """What the rows were made with.

    Attributes:
      weights_sha256: of the network; empty without one.
      hand_model_sha256: of MANO's arrays, or the stand-in's.
      code_sha256: of this package's files.
      code_commit: of them, for people; empty where it is not known.
    """

    weights_sha256: str
    hand_model_sha256: str
    code_sha256: str
    code_commit: str


@dataclasses.dataclass(frozen=True)
class Camera:
    """The camera of all pictures, as `Engine.many` takes it."""

    focal_px: tuple[float, float] | None = None
    principal_point_px: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The rows of some of a unit's inputs.

    Attributes:
      hands: in the columns of `er_jax.video.parquet.schema`, and `key`.
      inputs: source, key, width and height, frames and hands of each input that was read.
      failed: of what was not.
    """

    hands: "pyarrow.Table"
    inputs: "list[dict[str, Any]]"
    failed: list[Failed]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles it; PyArrow's own pickles forget that a list's elements are never null."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.hands.schema) as stream:
            stream.write_table(self.hands)
        return _unpickled, (sink.getvalue().to_pybytes(), self.inputs, self.failed)


def _unpickled(hands: bytes, inputs: "list[dict[str, Any]]", failed: list[Failed]) -> Part:
    import pyarrow as pa

    return Part(pa.ipc.open_stream(hands).read_all(), inputs, failed)


def reconstructed(seen: Sequence[Seen | Failed | Followed], engine: Engine, camera: Camera) -> Part:
    """The rows of pictures, or of pieces of videos.

    What no result can be made of has failed, and all else is there: nothing ends a night's work.

    Args:
      seen: in the order in which the rows shall be.
      engine: that fits.
      camera: of all of them.
    """
    parts = [Part(_no_rows(engine), [], [one for one in seen if isinstance(one, Failed)])]
    if pictures := [one for one in seen if isinstance(one, Seen)]:
        parts += _of_pictures(pictures, engine, camera)
    for clip in seen:
        if isinstance(clip, Followed) and clip.seen is not None:
            parts.append(_of_clip(clip, engine, camera))
    return Part(
        pyarrow_module().concat_tables([part.hands for part in parts]),
        [row for part in parts for row in part.inputs],
        [one for part in parts for one in part.failed],
    )


def _no_rows(engine: Engine) -> "pyarrow.Table":
    return _with(rows_of_pictures([], engine.hand_model), "key", [])


def _of_pictures(pictures: Sequence[Seen], engine: Engine, camera: Camera) -> list[Part]:
    try:
        results = engine.many(
            [one.photograph for one in pictures],
            detections=[one.hands for one in pictures],
            focal_px=camera.focal_px,
            principal_point_px=camera.principal_point_px,
        )
    except Exception as error:
        if len(pictures) > 1:  # one of them is at fault
            return [part for one in pictures for part in _of_pictures([one], engine, camera)]
        (one,) = pictures
        reason = f"{type(error).__name__}: {error}"
        return [Part(_no_rows(engine), [], [Failed(one.source, one.key, reason)])]
    named = list(zip([one.source for one in pictures], results, strict=True))
    table = rows_of_pictures(named, engine.hand_model)
    both = list(zip(pictures, results, strict=True))
    keys = [one.key for one, result in both for _ in result.hands]
    rows = [_input(one.source, one.key, one.size_px, 1, len(found.hands)) for one, found in both]
    return [Part(_with(table, "key", keys), rows, [])]


def _of_clip(clip: Followed, engine: Engine, camera: Camera) -> Part:
    assert clip.seen is not None, "there are frames"
    try:
        made = _clip(clip, settled(clip.seen), engine, camera)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Part(_no_rows(engine), [], [Failed(clip.source, clip.key, reason)])
    table = rows_of(made, engine.hand_model, source=clip.source)
    place = table.schema.get_field_index("frame")
    numbers = pyarrow_module().array(table["frame"].to_numpy() + clip.first)
    table = table.set_column(place, table.schema.field("frame"), numbers)
    row = _input(clip.source, clip.key, made.size_px, len(made.times_s), len(table))
    failed = [Failed(clip.source, clip.key, clip.short)] if clip.short else []
    return Part(_with(table, "key", [clip.key] * len(table)), [row], failed)


def _clip(clip: Followed, seen: Observations, engine: Engine, camera: Camera) -> Clip:
    used = camera_of(blank(seen.size_px), camera.focal_px, camera.principal_point_px)
    frames = None
    if engine.has_network:
        frames = Frames.of(Path(clip.source)).part(clip.first, len(seen.times_s))
    tracks = fit_clip(engine, seen, used, None, frames) if len(seen) else []
    return Clip(
        name=Path(clip.source).stem,
        size_px=seen.size_px,
        times_s=seen.times_s,
        camera=used,
        tracks=tuple(smooth(track, seen.times_s, engine.hand_model) for track in tracks),
        hand_model=engine.hand_model.source,
    )


def _input(
    source: str, key: str, size_px: tuple[int, int], frames: int, hands: int
) -> dict[str, Any]:
    width, height = size_px
    return {
        "source": source,
        "key": key,
        "width_px": width,
        "height_px": height,
        "frames": frames,
        "hands": hands,
    }


def write_unit(folder: Path, number: int, parts: Sequence[Part], made: Made) -> None:
    """Writes a unit's shards, each of which is there whole or not at all.

    Args:
      folder: of the bulk's output.
      number: of the unit.
      parts: all of it, in order.
      made: with what.

    Raises:
      OSError: the disk is full, or the folder may not be written.
    """
    import pyarrow as pa

    strings, whole = pa.string(), pa.int64()
    kinds = {"source": strings, "key": strings, "reason": strings}
    input_names = ("source", "key", "width_px", "height_px", "frames", "hands")
    failed_names = ("source", "key", "reason")

    def table(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> "pa.Table":
        schema = pa.schema([pa.field(n, kinds.get(n, whole), nullable=False) for n in names])
        return pa.Table.from_pylist(list(rows), schema)

    failed = [dataclasses.asdict(one) for part in parts for one in part.failed]
    inputs = [row for part in parts for row in part.inputs]
    hands = pa.concat_tables([part.hands for part in parts])
    for name, value in dataclasses.asdict(made).items():
        column = pa.array(np.zeros(len(hands), np.int32))
        constant = pa.DictionaryArray.from_arrays(column, pa.array([value]))
        hands = hands.append_column(pa.field(name, constant.type, nullable=False), constant)
    told = {**hands.schema.metadata, b"er_jax.bulk": json.dumps(dataclasses.asdict(made)).encode()}
    _write(shard(folder, FAILED, number), table(failed_names, failed) if failed else None)
    _write(shard(folder, INPUTS, number), table(input_names, inputs))
    _write(shard(folder, HANDS, number), hands.replace_schema_metadata(told))


def shard(folder: Path, table: str, number: int) -> Path:
    """The file of a unit in one of the three tables."""
    return folder / table / f"unit-{number:08d}.parquet"


def units_done(folder: Path) -> set[int]:
    """Numbers of the units whose shards are there."""
    return {
        int(path.stem.removeprefix("unit-")) for path in (folder / HANDS).glob("unit-*.parquet")
    }


def undo_failed(folder: Path, units: Iterable[int]) -> None:
    """Has the units in which something failed count as not done."""
    for unit in units:
        if shard(folder, FAILED, unit).exists():
            shard(folder, HANDS, unit).unlink(missing_ok=True)


def _write(path: Path, table: "pyarrow.Table | None") -> None:
    import pyarrow.parquet as pq

    if table is None:
        path.unlink(missing_ok=True)  # of a run that was ended before it was done
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _with(table: "pyarrow.Table", name: str, values: Sequence[str]) -> "pyarrow.Table":
    pa = pyarrow_module()
    field = pa.field(name, pa.string(), nullable=False)
    return table.append_column(field, pa.array(values, pa.string()))
