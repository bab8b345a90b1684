"""Pictures in Parquet files: as bytes, or as paths of files."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from er_jax.utils.errors import ConfigError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 500
"""Of a table, most in one piece of work."""
READ_AT_ONCE = 16
_USUAL_NAMES = ("path", "file", "filename", "file_name", "image", "image_path", "picture")


def table_entries(path: Path, column: str | None) -> Iterator[tuple[int, int, str]]:
    """First row and number of rows of each piece of a table, and the pictures' column.

    Raises:
      ConfigError: the column must be told, or is none of pictures.
      DataError: it is no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file that can be read ({error})") from None
    used = picture_column(schema, column, path)
    for first in range(0, rows, ROWS):
        yield first, min(ROWS, rows - first), used


def picture_column(schema: "pa.Schema", asked: str | None, path: Path) -> str:
    """The column of the pictures: as asked, or the only one that holds bytes, or names files.

    Raises:
      ConfigError: see `table_entries`.
    """
    kinds = {field.name: _kind(field.type) for field in schema}
    if asked is not None:
        if kinds.get(asked) is None:
            raise ConfigError(
                f"{path}: --column={asked}: the columns that could hold pictures are "
                f"{', '.join(name for name, kind in kinds.items() if kind) or 'none'}"
            )
        return asked
    of_bytes = [name for name, kind in kinds.items() if kind == "bytes"]
    of_paths = [n for n, kind in kinds.items() if kind == "text" and n.lower() in _USUAL_NAMES]
    found = of_bytes or of_paths
    if len(found) != 1:
        told = (
            f"pictures may be in {', '.join(found)}" if found else "no column of pictures is plain"
        )
        raise ConfigError(
            f"{path}: {told}; its columns are {', '.join(kinds)}: say which with --column"
        )
    return found[0]


def pictures_of_table(
    source: str, column: str, first: int, count: int
) -> Iterator[tuple[str, bytes | None, str | None, str]]:
    """Some rows: the row's number, the picture's bytes, or its file, and why there is neither.

    Rows after one that cannot be decoded are lost with it: one line says so.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = first
    try:
        with pq.ParquetFile(source) as file:
            groups, skipped = _row_groups(file.metadata, first, count)
            batches = file.iter_batches(READ_AT_ONCE, row_groups=groups, columns=[column])
            values = (value for batch in batches for value in batch.column(0))
            for _ in range(skipped):
                next(values)
            for row in range(first, first + count):
                yield str(row), *_picture(next(values).as_py(), Path(source).parent)
    except (pa.ArrowException, OSError) as error:
        yield f"rows {row} to {first + count - 1}", None, None, f"cannot be read ({error})"


def _kind(kind: "pa.DataType") -> str | None:
    """ "bytes", "text", or None of what holds no pictures."""
    from pyarrow import types

    if types.is_struct(kind):  # as Hugging Face's datasets have it: bytes, path
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return "bytes" if names >= {"bytes"} else None
    if types.is_binary(kind) or types.is_large_binary(kind):
        return "bytes"
    return "text" if types.is_string(kind) or types.is_large_string(kind) else None


def _row_groups(metadata: Any, first: int, count: int) -> tuple[list[int], int]:
    """The row groups in which so many rows lie, and how many rows of them come before."""
    groups: list[int] = []
    skipped = start = 0
    for group in range(metadata.num_row_groups):
        end = start + metadata.row_group(group).num_rows
        if end > first and start < first + count:
            if not groups:
                skipped = first - start
            groups.append(group)
        start = end
    return groups, skipped


def _picture(value: Any, folder: Path) -> tuple[bytes | None, str | None, str]:
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None and isinstance(value, dict) and value.get("path"):
        data = value["path"]
    if not data:
        return None, None, "no picture in this row"
    return (data, None, "") if isinstance(data, bytes) else (None, str(folder / data), "")
