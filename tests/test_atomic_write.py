"""A file is the old one or the whole new one."""

import json

import pytest

from er_jax.utils.atomic_write import atomic_write, write_json


def test_a_file_takes_its_place_whole_and_leaves_nothing_beside(tmp_path):
    file = tmp_path / "numbers.json"
    file.write_text("old")
    with atomic_write(file) as temporary:
        temporary.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_leaves_the_file_that_was_there(tmp_path):
    file = tmp_path / "numbers.json"
    file.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(file) as temporary:
        temporary.write_text("ne")
        raise RuntimeError("disk full")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("durable", [False, True])
def test_the_place_beside_may_be_named(tmp_path, durable):
    file, place = tmp_path / "numbers.bin", tmp_path / "numbers.17"
    with atomic_write(file, temporary=place, durable=durable) as beside:
        assert beside == place
        place.write_bytes(b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_json_comes_back_and_nan_is_refused(tmp_path):
    file = tmp_path / "numbers.json"
    write_json(file, {"a": [1, 2.5, None]})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": [1, 2.5, None]}
