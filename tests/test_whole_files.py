"""A file is the old one or the whole new one."""

import pytest

from er_jax.whole_files import written_whole


def test_a_file_takes_its_place_whole_and_leaves_nothing_beside(tmp_path):
    file = tmp_path / "numbers.json"
    file.write_text("old")
    with written_whole(file) as beside:
        beside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_file_that_was_there(tmp_path):
    file = tmp_path / "numbers.json"
    file.write_text("old")
    with pytest.raises(RuntimeError), written_whole(file) as beside:
        beside.write_text("ne")
        raise RuntimeError("disk full")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]
