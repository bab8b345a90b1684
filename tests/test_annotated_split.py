"""A split's annotations, read without its images, are those of its records."""

import numpy as np
import pytest
from tiny_tree import tiny_tree

from data_pipeline.annotated_split import AnnotatedSplit
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource
from data_pipeline.loader import make_eval_loader
from data_pipeline.records import BOX_SOURCES


def assert_is_what_the_loader_gives(split: AnnotatedSplit) -> None:
    loader = make_eval_loader(
        split.data_dir,
        split.dataset,
        split.split,
        batch_size=split.batch_size,
        input_size=split.input_size,
    )
    batches = list(split)
    assert len(batches) == len(split)
    for found, expected in zip(batches, loader, strict=True):
        expected.pop("image")
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
            assert found[name].dtype == values.dtype, name


@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_those_of_the_loader(data_dir, split):
    assert_is_what_the_loader_gives(AnnotatedSplit(data_dir, "interhand26m", split, 5, 128))


def test_images_left_out_are_left_out_here_too(tmp_path):
    tree = tiny_tree("test", frames=3, cameras=2)
    tree.brightness[tree.data["images"][4]["file_name"]] = 3
    raw = tree.write(tmp_path / "raw")
    (raw / "images/test" / tree.data["images"][7]["file_name"]).write_bytes(b"")
    arguments = [f"--raw_dir={raw}", f"--data_dir={tmp_path / 'ds'}", "--max_bad_images=1"]
    assert build.main(["interhand26m", *arguments, "--subset=interacting_mano"]) == 0
    split = AnnotatedSplit(tmp_path / "ds", "interhand26m/interacting_mano", "test", 4)
    assert split.sample_count == 10
    assert not np.isin([4, 7], split.sample_ids).any()
    assert_is_what_the_loader_gives(split)


def test_labels_and_images(data_dir):
    split = AnnotatedSplit(data_dir, "interhand26m", "test")
    source = RecordSource(split.folder, "test")
    for index in range(len(source)):
        record = source[index]
        labels = split.labels
        assert labels.sample_id[index] == record["annotation_id"]
        assert labels.camera[index] == record["camera"].decode()
        sequence = f"{record['capture'].decode()}/{record['seq_name'].decode()}"
        assert labels.sequence[index] == sequence
        assert labels.box_source[index] == BOX_SOURCES[record["bbox_source"]]
    image, sample = split.image(3)
    assert sample["annotation_id"] == split.sample_ids[3]
    assert image.shape[1::-1] == tuple(sample["image_size_px"])


def test_samples_from_all_over_the_split(data_dir):
    split = AnnotatedSplit(data_dir, "interhand26m", "train", batch_size=2)
    (first, second) = split.spread(3)
    ids = [*first["annotation_id"], second["annotation_id"][0]]
    assert ids == split.sample_ids[[0, 11, 23]].tolist()
    assert second["sample_mask"].tolist() == [True, False]
