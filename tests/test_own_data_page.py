"""The page on own data is followed, command by command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from official_files import write_official_folder
from own_data import write_own_data

from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.readers.records import HandEntry, Line, read_lines

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/own_data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_the_page_names_every_key_and_its_line_is_one(tmp_path):
    text = PAGE.read_text()
    for keys in (Line, HandEntry):
        for key in keys.__struct_fields__:
            assert f"`{key}`" in text, key
    (line,) = blocks("json")
    (tmp_path / "a.jsonl").write_text(line)
    ((_, read),) = read_lines(tmp_path / "a.jsonl")
    assert read.right is not None and len(read.right.joints_px or ()) == 21


@pytest.mark.slow
def test_the_page_is_followed(data_dir, detector_dir, tmp_path):
    """Twenty drawn images, annotated and not, to two trained networks and a drawn overlay."""
    source = RecordSource(find_dataset(data_dir, "interhand26m"), "train")
    write_own_data(tmp_path / "OWN", source, 20)
    (tmp_path / "PHOTOS").mkdir()
    for index in range(20):
        (tmp_path / f"PHOTOS/{index}.jpg").write_bytes(source[index]["image"])
    (tmp_path / "MANO").mkdir()
    write_official_folder(tmp_path / "MANO")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, arguments in (("python", ""), ("er_jax", "-m er_jax")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (tools / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def follow(commands: str) -> str:
        commands = commands.replace("configs/ih26m.py", str(ROOT / "configs/tiny.py"))
        commands = commands.replace(
            "--config.data_dir=DATASETS",
            "--config.data_dir=DATASETS --config.data.validation_split=val",
        )
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    follow(
        f"python -m er_jax.main --config configs/ih26m.py --workdir OTHER_RUN "
        f"--config.data_dir={data_dir} --config.mano_dir=MANO --config.epochs=1"
    )
    building, training, labelling, fine_tuning = blocks("sh")
    assert "records" in follow(building)
    follow(training)
    said = follow(labelling)
    assert "hands labelled" in said
    follow(fine_tuning)
    for name in ("own_data.jpg", "labels.jpg", "RUN/evaluation", "hands", "RUN_PHOTOS/checkpoints"):
        assert (tmp_path / name).exists(), name
    assert len(list((tmp_path / "hands").glob("*_hands.json"))) == 20
