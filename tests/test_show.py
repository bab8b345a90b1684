"""The page of samples."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_tree import FOCAL, HEIGHT, PRINCPT, WIDTH, tiny_tree

from data_pipeline import show
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    tree = tiny_tree(frames=1, cameras=1)
    tree.mano["1"]["20000"]["right"] = None
    arguments = [f"--raw_dir={tree.write(folder / 'raw')}", f"--data_dir={folder}", "--workers=1"]
    assert build.main(["interhand26m", *arguments]) == 0
    return folder


def test_page_has_each_sample_twice(built, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(show, "_SMALL_BOX", 0.0)  # all of each image
    path = tmp_path / "page.png"
    assert show.main(["interhand26m", f"--data_dir={built}", f"--output={path}"]) == 0
    assert str(path) in capsys.readouterr().out
    page = cv2.imread(str(path))[..., ::-1].astype(int)
    image = round(show._WIDTH * HEIGHT / WIDTH)
    assert page.shape == (2 * image + show._CAPTION + 4, 2 * (show._WIDTH + 4), 3)
    above, below = page[:image], page[image : 2 * image]
    for hand, colour in enumerate(np.array(show.HAND_COLOURS) * 255):
        assert (np.abs(above - colour).max(axis=2) < 40).any(), f"no joint of hand {hand}"
    assert (below != above).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["hic"], "has no dataset hic/all"),
        (["interhand26m", "--split=val"], "has no split 'val', only train"),
        (["interhand26m", "--mano_dir=nowhere"], "nowhere: no MANO_RIGHT.npz"),
        (["interhand26m", "--output=page.text"], "page.text: no image format has this ending"),
    ],
)
def test_errors(built, capsys, options, message):
    assert show.main([*options, f"--data_dir={built}", "--count=1"]) == 1
    assert message in capsys.readouterr().err


def test_joints_are_projected(built):
    source = RecordSource(find_dataset(built, "interhand26m"), "train")
    record = source[0]
    x, y, z = record["joint_world_mm"][1, 4]  # the first camera stands 1 m before the origin
    pixel = show.annotated_joints(record).pixels[1, 4]
    np.testing.assert_allclose(pixel, [x, y] / (z + 1000) * FOCAL + PRINCPT, rtol=1e-5)
