"""A reader is one file: what is put beside the others is found, built and read."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
from own_data import write_noise

from data_pipeline import readers
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset

TOY = '''
"""A toy format: a table of images and wrists."""

import csv

import numpy as np

from data_pipeline.build.labels import (
    HandLabels,
    ImageLabels,
    fields_of,
    table_of,
)
from data_pipeline.build.request import BuildRequest

HELP = "a toy"


def add_arguments(parser):
    parser.add_argument("--every", type=int, default=1)


def make_request(options):
    table = options.raw_dir / "toy.csv"
    images = []
    for number, row in enumerate(csv.DictReader(table.open())):
        joints = np.full((21, 2), np.nan)
        joints[[0, 9]] = [[row["x"], row["y"]], [row["x2"], row["y2"]]]
        hand = HandLabels(joints_px=joints)
        size = (int(row["width"]), int(row["height"]))
        images.append(ImageLabels(
            file_name=row["image"], annotation_id=number, size_px=size, hands_there="left",
            left=hand, where=f"{table}, row {number}",
        ))
    images = images[:: options.every]
    fields = fields_of(images)
    return BuildRequest(
        dataset="toy", config="all", description="a toy", splits=["train"],
        options={"every": options.every}, source_files={"toy.csv": table},
        read_split=lambda split, track: table_of(images, options.raw_dir, fields), fields=fields,
    )
'''


@pytest.fixture
def toy_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader in a folder of the package; and its raw data."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/toy.py").write_text(TOY)
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(tmp_path / "more")])
    importlib.invalidate_caches()
    raw = tmp_path / "raw"
    raw.mkdir()
    with (raw / "toy.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "x", "y", "x2", "y2", "width", "height"])
        for i in range(4):
            write_noise(raw / f"{i}.png")
            rows.writerow([f"{i}.png", 20 + i, 30, 40, 50, 96, 64])
    return raw


def test_a_reader_is_one_file(toy_reader, tmp_path):
    arguments = [f"--raw_dir={toy_reader}", f"--data_dir={tmp_path / 'ds'}", "--workers=1"]
    assert build.main(["toy", *arguments, "--every=2"]) == 0
    source = RecordSource(find_dataset(tmp_path / "ds", "toy"), "train")
    assert len(source) == 2
    for record in map(source.__getitem__, range(2)):
        assert (record["hand_type"], record["hand_type_valid"]) == (1, True)
        assert np.argwhere(record["joint_px_valid"]).tolist() == [[1, 0], [1, 9]]
        wrist = record["joint_px"][1, 0]
        assert wrist.tolist() == [20 + record["annotation_id"], 30]


def test_every_reader_has_what_is_asked_for():
    found = readers.all_readers()
    assert {"interhand26m", "hic", "records", "photographs"} <= found.keys()
    for reader in found.values():
        assert reader.HELP and callable(reader.add_arguments) and callable(reader.make_request)
