"""MANO's files: what is read, what every check says, and conversion to .npz."""

import dataclasses
import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from official_files import official_pickle, write_official_folder

from er_jax.mano import HandFileError, convert, hand_model_identity, load_hands, mano_forward
from er_jax.mano.files import (
    INTEGER_KEYS,
    SHAPES,
    check_hand,
    fingerprint,
    read_hand,
    read_hands,
)
from er_jax.mano.stand_in import stand_in_arrays

SHARED = Path(__file__).parents[2] / "shared"
needs_fixtures = pytest.mark.skipif(
    not (SHARED / "fixtures").exists(), reason="the fixtures are not here"
)
SIDES = ("right", "left")


def write(folder: Path, content: Any, protocol: int = 2) -> Path:
    path = folder / "MANO_RIGHT.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


def assert_same_arrays(read: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert read.keys() == expected.keys() == SHAPES.keys()
    for key, array in expected.items():
        np.testing.assert_array_equal(read[key], array, err_msg=key)


class Bystander(pickle.Unpickler):
    """Another reader of the fixtures: numpy and scipy's own objects, chumpy's as plain ones."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("chumpy"):
            return type(name, (), {})
        return super().find_class(module.replace("sparse.csc", "sparse"), name)


@needs_fixtures
@pytest.mark.parametrize("side", SIDES)
def test_fixtures_hold_what_numpy_and_scipy_read(side):
    path = SHARED / f"fixtures/mano/MANO_{side.upper()}.pkl"
    with path.open("rb") as stream:
        other = Bystander(stream, encoding="latin1").load()
    select = other["shapedirs"]
    expected = {key: other[key] for key in SHAPES}
    expected["shapedirs"] = select.a.x.ravel()[select.idxs].reshape(select.preferred_shape)
    expected["J_regressor"] = other["J_regressor"].toarray()
    assert_same_arrays(read_hand(path).arrays, expected)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_official_objects_are_read_whatever_wrote_them(tmp_path, protocol):
    arrays = stand_in_arrays("right")
    path = write(tmp_path, official_pickle(arrays, protocol))
    assert_same_arrays(read_hand(path).arrays, arrays)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_arrays_are_read(tmp_path, protocol):
    arrays = stand_in_arrays("right")
    assert_same_arrays(read_hand(write(tmp_path, arrays, protocol)).arrays, arrays)


def test_other_memory_layouts_are_read(tmp_path):
    arrays = stand_in_arrays("right")
    arrays |= {
        "v_template": np.asfortranarray(arrays["v_template"]),
        "posedirs": np.moveaxis(np.moveaxis(arrays["posedirs"], -1, 0).copy(), 0, -1),
        "weights": arrays["weights"].astype(">f8"),
        "shapedirs": arrays["shapedirs"].astype(np.float32),
        "f": arrays["f"].astype(np.uint32),
    }
    read = read_hand(write(tmp_path, arrays)).arrays
    assert_same_arrays(read, arrays)
    assert all(array.dtype.isnative for array in read.values())


def test_files_in_a_subfolder_are_found_and_missing_ones_named(tmp_path):
    with pytest.raises(HandFileError, match=r"no MANO_RIGHT.npz or MANO_RIGHT.pkl .* register"):
        load_hands(tmp_path)
    (tmp_path / "models").mkdir()
    write_official_folder(tmp_path / "models")
    assert load_hands(tmp_path).source == "MANO files"


def test_the_left_hands_shape_directions_are_mirrored_and_logged_once(tmp_path, caplog):
    """As in the official file, whose x components are the right hand's."""
    left = stand_in_arrays("left")
    wrong = {**left, "shapedirs": left["shapedirs"] * np.array([-1, 1, 1])[:, None]}
    folder = write_official_folder(tmp_path, wrong)
    with caplog.at_level(logging.WARNING):
        first, second = read_hands(folder), read_hands(folder)
    for hands in (first, second):
        np.testing.assert_array_equal(hands["left"].arrays["shapedirs"], left["shapedirs"])
        np.testing.assert_array_equal(
            hands["right"].arrays["shapedirs"], stand_in_arrays("right")["shapedirs"]
        )
    assert len(caplog.messages) == 1
    assert "MANO_LEFT.pkl: shapedirs" in caplog.messages[0] and "mirrored" in caplog.messages[0]


def test_a_left_hand_that_is_right_stays_and_nothing_is_logged(tmp_path, caplog):
    hands = read_hands(write_official_folder(tmp_path))
    assert_same_arrays(hands["left"].arrays, stand_in_arrays("left"))
    assert not caplog.messages


def test_converted_files_give_the_same_hands(tmp_path, capsys):
    left = stand_in_arrays("left")
    left["shapedirs"] = left["shapedirs"] * np.array([-1, 1, 1])[:, None]
    folder = write_official_folder(tmp_path, left)
    before = load_hands(folder)
    assert convert.main([str(folder)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert written == [folder / "MANO_RIGHT.npz", folder / "MANO_LEFT.npz"]
    for path in written:
        with np.load(path, allow_pickle=False) as archive:
            assert set(archive.files) == SHAPES.keys()
    for path in folder.glob("*.pkl"):
        path.unlink()
    after = load_hands(folder)
    pose = np.random.default_rng(0).normal(size=(2, 48))
    np.testing.assert_array_equal(
        mano_forward(after, np.ones((2, 10)), pose).vertices,
        mano_forward(before, np.ones((2, 10)), pose).vertices,
    )
    assert hand_model_identity(after) == hand_model_identity(before)


def test_memory_layout_does_not_change_the_fingerprint():
    arrays = {side: stand_in_arrays(side) for side in SIDES}
    otherwise = {
        **arrays["right"],
        "v_template": np.asfortranarray(arrays["right"]["v_template"]),
        "weights": arrays["right"]["weights"].astype(">f8"),
        "f": arrays["right"]["f"].astype(np.uint32),
    }
    assert fingerprint({**arrays, "right": otherwise}) == fingerprint(arrays)


@pytest.mark.parametrize("key", SHAPES)
def test_a_change_of_any_value_changes_the_fingerprint(key):
    arrays = {side: stand_in_arrays(side) for side in SIDES}
    before = fingerprint(arrays)
    value = arrays["left"][key]
    index = (0,) * value.ndim
    value[index] = value[index] + 1 if key in INTEGER_KEYS else np.nextafter(value[index], 1)
    assert fingerprint(arrays) != before


def test_the_fingerprint_is_the_same_on_every_machine():
    """With another one, runs begun elsewhere or before could not go on."""
    hands = load_hands(None)
    assert hand_model_identity(hands) == {
        "hand_model": "stand-in",
        "hand_model_sha256": "85eb121aeba6e54e46402cb567931e5f910083b162001fc76393426d1feb6676",
    }
    otherwise_rounded = dataclasses.replace(hands, rest_joints=hands.rest_joints * (1 + 1e-6))
    assert hand_model_identity(otherwise_rounded) == hand_model_identity(hands)


def test_conversion_of_the_same_files_gives_the_same_bytes(tmp_path):
    hand = read_hand(write_official_folder(tmp_path) / "MANO_RIGHT.pkl")
    reordered = dataclasses.replace(hand, arrays=dict(reversed(hand.arrays.items())))
    one, other = (
        convert.write_npz(same, tmp_path / f"{number}.npz").read_bytes()
        for number, same in enumerate((hand, reordered))
    )
    assert one == other
    with zipfile.ZipFile(tmp_path / "0.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_conversion_elsewhere_and_of_nothing(tmp_path, capsys):
    assert convert.main([str(tmp_path)]) == 1
    assert "no MANO_RIGHT.pkl" in capsys.readouterr().err
    write_official_folder(tmp_path)
    assert convert.main([str(tmp_path), f"--output_dir={tmp_path / 'plain'}"]) == 0
    assert not list(tmp_path.glob("*.npz"))
    assert_same_arrays(
        read_hands(tmp_path / "plain")["left"].arrays,
        read_hands(tmp_path)["left"].arrays,
    )


def changed(array: np.ndarray, at: Any, value: float) -> np.ndarray:
    result = array.copy()
    result[at] = value
    return result


BROKEN = {
    "v_template: is missing": lambda a: a.pop("v_template"),
    "posedirs: has shape (778, 3, 207), not (778, 3, 135)": lambda a: a.update(
        posedirs=np.zeros((778, 3, 207))
    ),
    "weights: has type int64": lambda a: a.update(weights=a["weights"].astype(np.int64)),
    "f: has type float64": lambda a: a.update(f=a["f"].astype(float)),
    "hands_mean: has values that are not finite": lambda a: a.update(
        hands_mean=changed(a["hands_mean"], 3, np.nan)
    ),
    "shapedirs: has values that are not finite": lambda a: a.update(
        shapedirs=changed(a["shapedirs"], (5, 0, 0), np.inf)
    ),
    "f: names vertices beyond the 778": lambda a: a.update(f=changed(a["f"], (0, 0), 778)),
    "kintree_table: has parents [0, 1, 1,": lambda a: a.update(
        kintree_table=changed(a["kintree_table"], (0, 3), 1)
    ),
    "weights: do not sum to 1 at every vertex": lambda a: a.update(
        weights=changed(a["weights"], 7, 0.1)
    ),
}


@pytest.mark.parametrize("message", BROKEN)
def test_every_check_says_file_key_and_rule(tmp_path, message):
    arrays = stand_in_arrays("right")
    BROKEN[message](arrays)
    with pytest.raises(HandFileError) as error:
        check_hand(arrays, "a.pkl")
    assert str(error.value).startswith(f"a.pkl: {message}")
    path = write(tmp_path, arrays)
    with pytest.raises(HandFileError) as error:
        read_hand(path)
    assert str(error.value).startswith(f"{path}: {message}")
