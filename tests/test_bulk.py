"""Units of pictures, done once whatever happens: plans, sources, processes, shards."""

import dataclasses
import io
import json
import os
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from coded_pictures import BREAKS, KILLS, SIZE, coded, hands, picture, pixels
from drawn_hands import drawn
from test_photographs import SaidByNetwork

from er_jax.bulk import pool, sources
from er_jax.bulk import run as bulk_run
from er_jax.bulk.plan import NAME, Plan, make_plan, units_of
from er_jax.bulk.pool import Looking
from er_jax.bulk.results import (
    FAILED,
    HANDS,
    INPUTS,
    Camera,
    reconstructed,
    shard,
    units_done,
)
from er_jax.bulk.run import Bulk, run
from er_jax.bulk.seeing import Failed, Seen
from er_jax.bulk.sources import (
    PICTURE,
    TABLE,
    TAR,
    UNREADABLE,
    VIDEO,
    Entry,
    entries_of,
    pictures_of,
)
from er_jax.commands.bulk import _part
from er_jax.detection import DetectorError
from er_jax.mano import load_hands, mano_forward
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import read_photograph
from er_jax.utils.errors import ConfigError, DataError, DiskError, NotFoundError
from er_jax.utils.locks import locked
from er_jax.video.frames import Frames
from er_jax.video.parquet import COLUMNS, arrays_of

LOOKING = Looking(detectors=coded)
CAMERA = Camera((620.0, 600.0), (255.5, 199.5))


@pytest.fixture(scope="module")
def engine():
    return Engine(load_hands(), detector=None)


def put(folder: Path, codes: dict[str, int]) -> Path:
    """A folder of pictures by their names and codes."""
    for seed, (name, code) in enumerate(codes.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(code, seed))
    return folder


def rows(output: Path, table: str) -> list[dict]:
    """All rows of a table, by unit."""
    files = sorted((output / table).glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def names(output: Path, table: str) -> Counter:
    return Counter((Path(row["source"]).name, row["key"]) for row in rows(output, table))


# Sources


def kinds(*inputs, **options) -> list[tuple]:
    found = entries_of([str(one) for one in inputs], **options)
    return [(one.kind, Path(one.source).name, one.first, one.count) for one in found]


def test_a_folder_is_searched_for_all_that_can_be_read(tmp_path):
    put(tmp_path, {"b/2.png": 1, "b/1.PNG": 1, "a.jpg": 1})
    for name in ("notes.txt", "b/readme", "c/three.tar", "c/empty.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "again").symlink_to(tmp_path)
    assert kinds(tmp_path) == [
        (PICTURE, "a.jpg", 0, 1),
        (PICTURE, "1.PNG", 0, 1),
        (PICTURE, "2.png", 0, 1),
        (UNREADABLE, "empty.mp4", 0, 1),
        (TAR, "three.tar", 0, 0),
    ]


def test_patterns_and_lists_name_files(tmp_path):
    put(tmp_path, {"a/1.png": 1, "a/b/2.png": 1, "3.png": 1})
    found = kinds(tmp_path / "**" / "*.png")
    assert {name for _, name, *_ in found} == {"1.png", "2.png", "3.png"}
    (tmp_path / "some.txt").write_text("a/1.png\r\n\nnowhere.png\n/else/where\nx.tar\n")
    assert kinds(tmp_path / "some.txt") == [
        (PICTURE, "1.png", 0, 1),
        (PICTURE, "nowhere.png", 0, 1),
        (PICTURE, "where", 0, 1),
        (TAR, "x.tar", 0, 0),
    ]
    given = [one.source for one in entries_of([str(tmp_path / "some.txt")])]
    assert given[0] == str(tmp_path / "a/1.png") and given[2] == "/else/where"


@pytest.mark.parametrize(
    ("name", "error", "told"),
    [
        ("nowhere", NotFoundError, "no such file or folder"),
        ("*.png", NotFoundError, "no file has such a name"),
        ("s3://bucket/pictures", ConfigError, "mount or copy"),
    ],
)
def test_inputs_that_are_none(tmp_path, name, error, told):
    text = name if "://" in name else str(tmp_path / name)
    with pytest.raises(error, match=told):
        list(entries_of([text]))


def table(path: Path, columns: dict, rows_in_group: int = 4) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows_in_group)
    return path


def test_a_table_s_pictures_are_its_bytes_or_the_files_that_it_names(tmp_path, monkeypatch):
    from er_jax.bulk import tables

    monkeypatch.setattr(tables, "ROWS", 5)
    data = [bytes([i]) * 3 for i in range(12)]
    as_bytes = table(tmp_path / "bytes.parquet", {"id": list(range(12)), "jpg": data})
    assert kinds(as_bytes) == [
        (TABLE, "bytes.parquet", first, count) for first, count in ((0, 5), (5, 5), (10, 2))
    ]
    given = [one for entry in entries_of([str(as_bytes)]) for one in pictures_of(entry)]
    assert [(one.key, one.data) for one in given] == [(str(i), data[i]) for i in range(12)]
    named = table(tmp_path / "paths.parquet", {"path": ["a.png", "/b.png", None], "x": [1, 2, 3]})
    given = [one for entry in entries_of([str(named)]) for one in pictures_of(entry)]
    assert [one.source for one in given] == [str(tmp_path / "a.png"), "/b.png", str(named)]
    assert [one.key for one in given] == ["", "", "2"]
    assert given[2].reason == "no picture in this row" and given[0].data is None
    both = [{"bytes": b"1", "path": "a"}, {"bytes": None, "path": "b.png"}]
    hugging = table(tmp_path / "hugging.parquet", {"image": both})
    given = [one for entry in entries_of([str(hugging)]) for one in pictures_of(entry)]
    assert given[0].data == b"1" and given[1].source == str(tmp_path / "b.png")


@pytest.mark.parametrize(
    ("columns", "asked", "told"),
    [
        ({"a": [b"1"], "b": [b"2"]}, None, "pictures may be in a, b"),
        ({"label": ["x"], "n": [1]}, None, "no column of pictures is plain"),
        ({"n": [1], "a": [b"1"]}, "n", "--column=n: the columns that could hold pictures are a"),
    ],
)
def test_a_column_that_cannot_be_meant_is_asked_for(tmp_path, columns, asked, told):
    path = table(tmp_path / "t.parquet", columns)
    with pytest.raises(ConfigError, match=told):
        list(entries_of([str(path)], column=asked))


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def test_a_tar_gives_its_pictures_and_says_where_it_broke(tmp_path):
    whole = tar(tmp_path / "a.tar", {"0.jpg": b"0" * 700, "0.json": b"{}", "d/1.PNG": b"1" * 700})
    given = list(pictures_of(Entry(TAR, str(whole))))
    assert [(one.key, one.data[:1], one.reason) for one in given] == [
        ("0.jpg", b"0", ""),
        ("d/1.PNG", b"1", ""),
    ]
    data = whole.read_bytes()
    for left, members in ((3000, 2), (1000, 1), (2560, 2)):  # in a header, a member, between two
        whole.write_bytes(data[:left])
        *read, last = pictures_of(Entry(TAR, str(whole)))
        assert [one.key for one in read] == ["0.jpg"][: left > 1100]
        assert f"cut short after {members} members" in last.reason
    (tmp_path / "none.tar").write_bytes(b"no tar at all" * 100)
    (only,) = pictures_of(Entry(TAR, str(tmp_path / "none.tar")))
    assert "cut short after 0 members" in only.reason


# The plan


def test_units_hold_pictures_up_to_a_number_and_tars_and_videos_alone():
    kinds = [(PICTURE, 1)] * 3 + [(TAR, 0), (PICTURE, 1), (TABLE, 5), (TABLE, 2), (VIDEO, 0)]
    entries = [Entry(kind, f"{i}", count=count) for i, (kind, count) in enumerate(kinds)]
    units = [[one.source for one in unit] for unit in units_of(entries, 4)]
    assert units == [["3"], ["0", "1", "2", "4"], ["5"], ["7"], ["6"]]


def test_a_plan_is_read_by_unit_and_is_the_first_one_s(tmp_path):
    entries = [Entry(PICTURE, f"/p/{i}.png") for i in range(10)]
    make_plan(tmp_path, iter(entries), 4, {"a": 1}, "one")
    make_plan(tmp_path, iter(entries[:2]), 4, {"a": 2}, "other")
    plan = Plan(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (plan.units, plan.settings) == (3, {"a": 1})
    assert [one for unit in range(3) for one in plan.unit(unit)] == entries
    (tmp_path / NAME).write_bytes(b"PAR1 but damaged")
    with pytest.raises(DataError, match="cannot be read"):
        Plan(tmp_path)


def test_what_is_named_twice_is_refused(tmp_path):
    entries = [Entry(PICTURE, f"/p/{i % 7}.png") for i in range(9)]
    with pytest.raises(ConfigError, match=r"/p/0.png is named twice, and 1 others"):
        make_plan(tmp_path, iter(entries), 4, {}, "one")
    with pytest.raises(NotFoundError, match="no picture"):
        make_plan(tmp_path, iter([]), 4, {}, "one")
    assert not list(tmp_path.iterdir())


# Work


def bulk(tmp_path: Path, *inputs, **changes) -> Bulk:
    asked = Bulk(tuple(map(str, inputs)), tmp_path / "out", CAMERA, unit=4)
    return dataclasses.replace(asked, **changes)


def test_every_input_is_in_one_table_once_with_what_was_found(engine, tmp_path):
    put(tmp_path / "in", {f"{i}.png": i % 3 for i in range(8)})
    (tmp_path / "in" / "half.png").write_bytes(picture(1)[:200])
    (tmp_path / "in" / "text.jpg").write_text("no picture")
    put(tmp_path / "in", {"breaks.png": BREAKS})
    tar(tmp_path / "in" / "more.tar", {"x.png": picture(2, 9), "y.png": picture(0, 10)})
    (tmp_path / "in" / "empty.tar").write_bytes(
        tar(tmp_path / "e.tar", {"a.txt": b""}).read_bytes()
    )
    asked = bulk(tmp_path, tmp_path / "in")
    tally = run(asked, engine, LOOKING, 0)
    output = asked.output
    done, failed = names(output, INPUTS), names(output, FAILED)
    pictures = {(f"{i}.png", "") for i in range(8)} | {("more.tar", "x.png"), ("more.tar", "y.png")}
    assert set(done) == pictures and set(done.values()) == {1}
    assert set(failed) == {("half.png", ""), ("text.jpg", ""), ("breaks.png", "")}
    reasons = {Path(row["source"]).name: row["reason"] for row in rows(output, FAILED)}
    assert "cannot be read whole" in reasons["half.png"] and "not an image" in reasons["text.jpg"]
    assert reasons["breaks.png"] == "ZeroDivisionError: by nothing"
    found = names(output, HANDS)
    assert found == Counter(
        {(f"{i}.png", ""): i % 3 for i in range(8) if i % 3} | {("more.tar", "x.png"): 2}
    )
    assert {row["hands"] for row in rows(output, INPUTS)} == {0, 1, 2}
    assert (tally.inputs, tally.hands, tally.failed) == (10, sum(found.values()), 3)
    assert tally.units == len(units_done(output)) == Plan(output).units


def test_a_row_is_the_hand_that_the_engine_finds_and_says_what_made_it(engine, tmp_path):
    put(tmp_path / "in", {"a.png": 2})
    asked = bulk(tmp_path, tmp_path / "in")
    run(asked, engine, LOOKING, 0)
    stored = pq.read_table(shard(asked.output, HANDS, 0))
    assert stored.column_names == [
        *COLUMNS,
        *("key", "weights_sha256", "hand_model_sha256", "code_sha256", "code_commit"),
    ]
    group = pq.read_metadata(shard(asked.output, HANDS, 0)).row_group(0)
    assert {group.column(n).compression for n in range(group.num_columns)} == {"ZSTD"}
    (found,) = engine.many(
        [np.zeros((SIZE[1], SIZE[0], 3), np.uint8)],
        detections=[hands(2, 0)],
        focal_px=CAMERA.focal_px,
        principal_point_px=CAMERA.principal_point_px,
    )
    own = arrays_of(stored)
    models = load_hands()
    for row, hand in enumerate(found.hands):
        np.testing.assert_allclose(own["joints_m"][row], hand.joints, atol=1e-5)
        mesh = mano_forward(
            models.hand(hand.side), own["betas"][row], hand.pose, own["transl_m"][row]
        )
        np.testing.assert_allclose(mesh.vertices, hand.vertices, atol=1e-4)
    assert set(own["hand_model_sha256"]) == {models.sha256} and set(own["weights_sha256"]) == {""}
    assert len(own["code_sha256"][0]) == 64 and set(own["focal_source"]) == {"given"}
    assert json.loads(stored.schema.metadata[b"er_jax.joint_names"])[0] == "Wrist"


def video(path: Path, count: int) -> Path:
    """Of two hands in each frame; Matroska, which is read as far as it is there."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(pixels(2, index % 3), "rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def test_a_video_is_done_in_pieces_whose_frames_are_the_video_s(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "VIDEO_FRAMES", 10)
    path = video(tmp_path / "in.mkv", 24)
    assert kinds(path) == [
        (VIDEO, "in.mkv", 0, 10),
        (VIDEO, "in.mkv", 10, 10),
        (VIDEO, "in.mkv", 20, 0),
    ]
    asked = bulk(tmp_path, path)
    tally = run(asked, engine, LOOKING, 0)
    assert (tally.units, tally.inputs, tally.hands, tally.failed) == (3, 3, 48, 0)
    found = rows(asked.output, HANDS)
    assert [row["frame"] for row in found] == [frame for frame in range(24) for _ in range(2)]
    assert [row["handedness"] for row in found] == ["right", "left"] * 24
    np.testing.assert_allclose(
        [row["time_s"] for row in found], np.repeat(np.arange(24) / 20, 2), atol=2e-3
    )
    assert Counter(row["key"] for row in found) == {
        "frames 0 to 9": 20,
        "frames 10 to 19": 20,
        "frames 20 to 23": 8,
    }
    assert [row["frames"] for row in rows(asked.output, INPUTS)] == [10, 10, 4]


class Watching(SaidByNetwork):
    """A network that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(drawn(1, (0, 1), seed=7), None)
        self.shown: list[np.ndarray] = []

    def many(self, images, boxes):
        self.shown += images
        return super().many(images, boxes)


def test_a_network_is_shown_every_picture_and_frame_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "VIDEO_FRAMES", 10)
    put(tmp_path / "in", {f"{i}.png": 2 for i in range(6)})
    clip = video(tmp_path / "in" / "z.mkv", 24)
    network = Watching()
    engine = Engine(load_hands(), detector=None, network=network)
    asked = bulk(tmp_path, tmp_path / "in", camera=Camera())
    tally = run(asked, engine, dataclasses.replace(LOOKING, keep_pixels=True), 0)
    assert (tally.inputs, tally.hands, tally.failed) == (9, 60, 0)
    frames = [frame.pixels for frame in Frames.of(clip)]
    files = [read_photograph(tmp_path / "in" / f"{i}.png").pixels for i in range(6)]
    known = {picture.tobytes() for picture in (*files, *frames)}
    assert {picture.tobytes() for picture in network.shown} == known


def test_a_video_that_is_cut_short_gives_what_is_whole_and_says_so(engine, tmp_path):
    path = video(tmp_path / "in.mkv", 80)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    asked = bulk(tmp_path, path)
    run(asked, engine, LOOKING, 0)
    (read,), (failed,) = rows(asked.output, INPUTS), rows(asked.output, FAILED)
    assert 10 < read["frames"] < 70 and read["hands"] == 2 * read["frames"]
    assert failed["reason"] == f"only {read['frames']} of 80 frames could be decoded"
    assert failed["key"] == read["key"] == f"frames 0 to {read['frames'] - 1}"


def test_what_goes_through_another_process_is_the_same_to_its_types(engine):
    seen = Seen("a.png", "", SIZE, None, hands(2, 1), None)
    part = reconstructed([seen, Failed("b.png", "", "why")], engine, CAMERA)
    back = pickle.loads(pickle.dumps(part))
    assert back.hands.equals(part.hands, check_metadata=True)
    assert (back.inputs, back.failed) == (part.inputs, part.failed) and len(part.inputs) == 1


def test_the_same_again_does_nothing_and_another_thing_asks_for_another_folder(
    engine, tmp_path, caplog, monkeypatch
):
    put(tmp_path / "in", {f"{i}.png": 1 for i in range(6)})
    asked = bulk(tmp_path, tmp_path / "in")
    assert run(asked, engine, LOOKING, 0).units == 2
    before = {path: path.stat().st_mtime_ns for path in asked.output.rglob("*.parquet")}
    monkeypatch.setattr(bulk_run, "Looker", None)  # it is not even begun
    with caplog.at_level("INFO"):
        assert run(asked, engine, LOOKING, 0).units == 0
    assert "2 of 2 units are done" in caplog.text and "another --output" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in asked.output.rglob("*.parquet")}
    other = Engine(load_hands(), detector=None, weights_sha256="abc")
    for changed, used, told in (
        (bulk(tmp_path, tmp_path / "in", unit=5), engine, "unit: 4 there, 5 now"),
        (bulk(tmp_path, tmp_path / "in", camera=Camera()), engine, "focal_px"),
        (bulk(tmp_path, tmp_path), engine, "inputs"),
        (asked, other, "weights_sha256: '' there, 'abc' now"),
    ):
        with pytest.raises(ConfigError, match=f"was begun with something else: .*{told}"):
            run(changed, used, LOOKING, 0)


def test_what_is_missing_is_done_and_what_is_there_is_left(engine, tmp_path):
    put(tmp_path / "in", {f"{i}.png": 1 for i in range(12)})
    asked = bulk(tmp_path, tmp_path / "in")
    run(asked, engine, LOOKING, 0)
    whole = {path: path.read_bytes() for path in asked.output.rglob("*.parquet")}
    shard(asked.output, HANDS, 1).unlink()
    shard(asked.output, INPUTS, 1).write_bytes(b"half of it")
    shard(asked.output, FAILED, 1).parent.mkdir(exist_ok=True)
    shard(asked.output, FAILED, 1).write_bytes(b"of a run that was ended")
    assert run(asked, engine, LOOKING, 0).units == 1
    assert {path: path.read_bytes() for path in asked.output.rglob("*.parquet")} == whole


def test_what_failed_is_tried_again_on_request_alone(engine, tmp_path):
    put(tmp_path / "in", {f"{i}.png": 1 for i in range(8)})
    (tmp_path / "in" / "5.png").rename(tmp_path / "away.png")
    (tmp_path / "in" / "5.png").write_bytes(b"")
    asked = bulk(tmp_path, tmp_path / "in")
    run(asked, engine, LOOKING, 0)
    (tmp_path / "away.png").rename(tmp_path / "in" / "5.png")
    assert run(asked, engine, LOOKING, 0).units == 0
    assert names(asked.output, FAILED) == Counter({("5.png", ""): 1})
    assert run(dataclasses.replace(asked, retry=True), engine, LOOKING, 0).units == 1
    assert names(asked.output, INPUTS) == Counter({(f"{i}.png", ""): 1 for i in range(8)})
    assert not rows(asked.output, FAILED)


def test_parts_are_all_of_it_and_nothing_twice(engine, tmp_path):
    put(tmp_path / "in", {f"{i}.png": 1 for i in range(20)})
    for number in range(3):
        asked = bulk(tmp_path, tmp_path / "in", part=(number, 3))
        run(asked, engine, LOOKING, 0)
        assert {unit % 3 for unit in units_done(asked.output)} == set(range(number + 1))
    assert names(asked.output, INPUTS) == Counter({(f"{i}.png", ""): 1 for i in range(20)})
    assert run(bulk(tmp_path, tmp_path / "in"), engine, LOOKING, 0).units == 0


def test_a_picture_that_kills_whoever_reads_it_is_found_out(engine, tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "TRIES", 1)
    codes = {f"{i}.png": 1 for i in range(6)}
    put(tmp_path / "in", codes | {"3.png": KILLS})
    asked = bulk(tmp_path, tmp_path / "in")
    tally = run(asked, engine, LOOKING, 2)
    (failed,) = rows(asked.output, FAILED)
    assert Path(failed["source"]).name == "3.png" and "died each of 1 times" in failed["reason"]
    assert names(asked.output, INPUTS) == Counter({(f"{i}.png", ""): 1 for i in range(6) if i != 3})
    assert (tally.inputs, tally.failed) == (5, 1)


def missing(detector_dir: Path | None):
    raise DetectorError("its networks are not there")


@pytest.mark.parametrize("processes", [0, 1])
def test_without_a_detector_no_picture_is_to_blame(engine, tmp_path, processes):
    put(tmp_path / "in", {"0.png": 1})
    asked = bulk(tmp_path, tmp_path / "in")
    with pytest.raises(DetectorError, match="not there"):
        run(asked, engine, Looking(detectors=missing), processes)
    assert not units_done(asked.output)
    assert run(asked, engine, LOOKING, 0).inputs == 1


class Fragile:
    """An engine that breaks on some pictures."""

    weights_sha256 = None
    has_network = False

    def __init__(self, engine):
        self._engine, self.hand_model = engine, engine.hand_model

    def many(self, pictures, **options):
        if any(len(found) == 1 for found in options["detections"]):
            raise RuntimeError("of one hand alone")
        return self._engine.many(pictures, **options)


def test_a_picture_at_which_the_fit_breaks_has_failed_alone(engine, tmp_path):
    put(tmp_path / "in", {"0.png": 2, "1.png": 1, "2.png": 2})
    asked = bulk(tmp_path, tmp_path / "in")
    run(asked, Fragile(engine), LOOKING, 0)
    (failed,) = rows(asked.output, FAILED)
    assert Path(failed["source"]).name == "1.png"
    assert failed["reason"] == "RuntimeError: of one hand alone"
    assert names(asked.output, INPUTS) == Counter({("0.png", ""): 1, ("2.png", ""): 1})


def test_two_at_the_same_folder_are_told_apart(engine, tmp_path):
    put(tmp_path / "in", {"0.png": 1})
    asked = bulk(tmp_path, tmp_path / "in")
    refused = pytest.raises(DataError, match=r"Another process does .*out now")
    with locked(asked.output / ".part-0-of-1.lock", ""), refused:
        run(asked, engine, LOOKING, 0)
    assert run(asked, engine, LOOKING, 0).units == 1


@pytest.mark.parametrize("kind", [HANDS, INPUTS])
def test_a_full_disk_is_told_and_what_is_whole_is_kept(engine, tmp_path, monkeypatch, kind):
    put(tmp_path / "in", {f"{i}.png": 1 for i in range(8)})
    asked = bulk(tmp_path, tmp_path / "in")
    write = pq.write_table

    def full(table, path, **options):
        if f"{kind}/unit-00000001" in str(path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DiskError, match="No space left"):
        run(asked, engine, LOOKING, 0)
    assert units_done(asked.output) == {0}
    assert [path.name for path in (asked.output / HANDS).iterdir()] == ["unit-00000000.parquet"]
    monkeypatch.setattr(pq, "write_table", write)
    assert run(asked, engine, LOOKING, 0).units == 1
    assert names(asked.output, INPUTS) == Counter({(f"{i}.png", ""): 1 for i in range(8)})


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_done(
    engine, tmp_path, monkeypatch
):
    put(tmp_path / "in", {"a/0.png": 1, "b/1.png": 1})
    scandir = os.scandir

    def refused(path):
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    asked = bulk(tmp_path, tmp_path / "in")
    run(asked, engine, LOOKING, 0)
    (failed,) = rows(asked.output, FAILED)
    assert failed["source"] == str(tmp_path / "in" / "a") and "Permission" in failed["reason"]
    assert names(asked.output, INPUTS) == Counter({("1.png", ""): 1})


# The command


def test_a_share_of_the_units_is_a_number_of_a_count():
    assert _part("2/3") == (2, 3)
    for text in ("3/3", "1", "a/b", "-1/2", "1/0", "1/2/3"):
        with pytest.raises(ConfigError, match=f"--part={text}: give I/N, I from 0 to N - 1"):
            _part(text)
