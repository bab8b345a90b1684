"""MANO's parameters in smplx's and SMPL-X's conventions, and back."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from official_files import write_official_folder
from reference import hand_mesh, rotation_matrix
from scipy.spatial.transform import Rotation

from er_jax.mano import (
    HAND21,
    HANDS,
    INTERHAND21,
    MANO16,
    convert,
    joint_order,
    joints_from_vertices,
    load_hands,
    mano_forward,
    pose_from_components,
)
from er_jax.mano.conventions import (
    BODY21,
    FREIHAND_TIP_VERTICES,
    JOINT_ORDERS,
    SMPLX21,
    SMPLX_TIP_VERTICES,
    betas_for,
    corrected_left_shapedirs,
    from_smplx,
    kinematic_joints,
    mirrored_pose,
    moved,
    pose_to_rotations,
    rest_wrist,
    rotations_to_pose,
    to_smplx,
    wrist_in_body,
    wrist_out_of_body,
)
from er_jax.mano.files import read_hand, read_hands
from er_jax.mano.stand_in import stand_in_arrays
from er_jax.photographs.photograph import camera_of, photograph_of
from er_jax.photographs.result import Hand, Person, Reconstruction

MIRROR = np.array([-1.0, 1, 1])
BODY_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
"""Of the pelvis and `BODY21`, as in SMPL-X's kintree_table."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files laid out as the official ones, the left one's shape directions wrong as there."""
    left = stand_in_arrays("left")
    left["shapedirs"] = left["shapedirs"] * MIRROR[:, None]
    return write_official_folder(tmp_path_factory.mktemp("mano"), left)


@pytest.fixture(scope="module")
def hands(folder):
    with jax.enable_x64(True):
        return load_hands(folder)


@pytest.fixture(scope="module")
def official(folder):
    """The files' arrays as they are."""
    return {side: read_hand(folder / f"MANO_{side.upper()}.pkl").arrays for side in HANDS}


def parameters(batch: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Of both hands."""
    random = np.random.default_rng(seed)
    return {
        "betas": random.normal(size=(batch, 2, 10)),
        "pose": random.normal(0, 0.4, (batch, 2, 48)),
        "transl": random.normal(size=(batch, 2, 3)),
    }


def mesh_of(hands, **given):
    with jax.enable_x64(True):
        mesh = mano_forward(hands, **given)
    return SimpleNamespace(vertices=np.asarray(mesh.vertices), joints=np.asarray(mesh.joints))


# Joint orders


def test_orders_as_their_sources_list_them():
    interhand = [f"{f}_{i}" for f in ("Thumb", "Index", "Middle", "Ring", "Pinky") for i in "4321"]
    assert list(JOINT_ORDERS["interhand26m"]) == [*interhand, "Wrist"] == list(INTERHAND21)
    openpose = [f"{f}_{i}" for f in ("Thumb", "Index", "Middle", "Ring", "Pinky") for i in "1234"]
    for name in ("er_jax", "openpose", "mediapipe", "freihand", "manopth"):
        assert list(JOINT_ORDERS[name]) == ["Wrist", *openpose]
    mano = [f"{f}_{i}" for f in ("Index", "Middle", "Pinky", "Ring", "Thumb") for i in "123"]
    assert list(JOINT_ORDERS["mano"]) == ["Wrist", *mano]
    tips = ["Thumb_4", "Index_4", "Middle_4", "Ring_4", "Pinky_4"]
    assert list(JOINT_ORDERS["smplx"]) == ["Wrist", *mano, *tips]
    assert list(SMPLX_TIP_VERTICES) == list(FREIHAND_TIP_VERTICES) == tips
    assert list(SMPLX_TIP_VERTICES.values()) == [744, 320, 443, 554, 671]
    assert list(FREIHAND_TIP_VERTICES.values()) == [744, 320, 443, 555, 672]
    assert joint_order(SMPLX21, HAND21).tolist() == [
        *(0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)
    ]  # as in HaMeR and manopth
    assert [BODY21.index(f"{side}_wrist") + 1 for side in HANDS] == [21, 20]
    assert [BODY21.index(name) + 1 for name in ("spine1", "spine2", "spine3")] == [3, 6, 9]


# Parameters


@pytest.mark.parametrize("flat", [False, True])
def test_smplx_and_back_is_the_identity(hands, flat):
    given = parameters()
    there = to_smplx(**given, mean_pose=hands.mean_pose, flat_hand_mean=flat)
    assert {key: value.shape[2:] for key, value in there.items()} == {
        "betas": (10,),
        "global_orient": (3,),
        "hand_pose": (45,),
        "transl": (3,),
    }
    back = from_smplx(**there, mean_pose=hands.mean_pose, flat_hand_mean=flat)
    assert back.keys() == given.keys()
    for key, value in back.items():
        np.testing.assert_allclose(value, given[key], atol=1e-14)


@pytest.mark.parametrize("flat", [False, True])
def test_the_same_hand_written_out(hands, folder, flat):
    """The specification's layer, which has smplx's `flat_hand_mean` as a mean of zero."""
    given = parameters()
    mesh = mesh_of(hands, **given)
    there = to_smplx(**given, mean_pose=hands.mean_pose, flat_hand_mean=flat)
    for column, file in enumerate(read_hands(folder).values()):
        arrays = dict(file.arrays)
        if flat:
            arrays["hands_mean"] = np.zeros(45)
        for sample in range(3):
            one = {key: value[sample, column] for key, value in there.items()}
            pose = np.concatenate([one["global_orient"], one["hand_pose"]])
            vertices = hand_mesh(arrays, one["betas"], pose, one["transl"])
            np.testing.assert_allclose(mesh.vertices[sample, column], vertices, atol=1e-9)


def test_without_a_translation_and_of_one_hand(hands):
    mean = hands.hand("left").mean_pose
    given = {key: value[0, 1] for key, value in parameters().items()}
    there = to_smplx(**given, mean_pose=mean, flat_hand_mean=True)
    assert there["hand_pose"].shape == (45,)
    np.testing.assert_allclose(there["hand_pose"] - given["pose"][3:], mean, atol=1e-12)
    there["transl"] = None
    back = from_smplx(**there, mean_pose=mean, flat_hand_mean=True)
    np.testing.assert_array_equal(back["transl"], np.zeros(3))


def test_rotation_matrices_and_back(hands):
    given = parameters()
    rotations = pose_to_rotations(given["pose"], hands.mean_pose)
    full = given["pose"] + np.pad(hands.mean_pose, ((0, 0), (3, 0)))
    np.testing.assert_allclose(
        rotations[2, 1, 5], rotation_matrix(full[2, 1, 15:18]), atol=1e-12
    )  # of joint 5
    as_matrices = {**given, "pose": rotations}
    np.testing.assert_allclose(
        mesh_of(hands, **as_matrices).vertices, mesh_of(hands, **given).vertices, atol=1e-9
    )
    back = rotations_to_pose(rotations, hands.mean_pose)
    assert np.linalg.norm(full.reshape(-1, 3), axis=1).max() < np.pi  # else another vector
    np.testing.assert_allclose(back, given["pose"], atol=1e-12)


def test_matrices_and_components_are_not_taken_for_axis_angle(hands):
    root, six = np.zeros((2, 3)), np.ones((2, 6))
    with pytest.raises(ValueError, match="pose_from_components"):
        from_smplx(np.zeros((2, 10)), root, six, hands.mean_pose, flat_hand_mean=False)
    with jax.enable_x64(True):
        pose = pose_from_components(hands, root, six)
    with pytest.raises(ValueError, match=r"pose has shape \(2, 45\)"):
        to_smplx(root, pose[:, 3:], root, hands.mean_pose, flat_hand_mean=False)
    with pytest.raises(ValueError, match="rotations has shape"):
        rotations_to_pose(np.zeros((15, 3, 3)), hands.mean_pose)
    with pytest.raises(ValueError, match="multiple of 3"):
        mirrored_pose(np.zeros(10))


def test_a_left_hand_predicted_as_a_mirrored_right_one(hands):
    """As HaMeR and WiLoR do: full rotations of a right hand in the mirrored picture."""
    given = {key: value[:, 0] for key, value in parameters().items()}
    right, left = hands.hand("right"), hands.hand("left")
    seen = mesh_of(right, **given)
    rotations = pose_to_rotations(given["pose"], right.mean_pose)
    full = rotations_to_pose(rotations, np.zeros(45))
    there = {
        "betas": given["betas"],
        "pose": mirrored_pose(full) - np.pad(left.mean_pose, (3, 0)),
        "transl": given["transl"] * MIRROR,
    }
    mesh = mesh_of(left, **there)
    np.testing.assert_allclose(mesh.vertices, seen.vertices * MIRROR, atol=1e-9)
    np.testing.assert_allclose(mesh.joints, seen.joints * MIRROR, atol=1e-9)
    np.testing.assert_array_equal(mirrored_pose(mirrored_pose(full)), full)


# Places


def test_a_motion_of_the_parameters_is_the_points_motion(hands):
    given = parameters()
    before = mesh_of(hands, **given)
    turn, shift = Rotation.random(random_state=1).as_matrix(), np.array([0.3, -0.2, 0.9])
    wrist = rest_wrist(hands, given["betas"])
    root, transl = moved(given["pose"][..., :3], given["transl"], wrist, turn, shift)
    pose = np.concatenate([root, given["pose"][..., 3:]], axis=-1)
    after = mesh_of(hands, betas=given["betas"], pose=pose, transl=transl)
    for key in ("vertices", "joints"):
        expected = getattr(before, key) @ turn.T + shift
        np.testing.assert_allclose(getattr(after, key), expected, atol=1e-9)
    back = moved(root, transl, wrist, turn.T, -turn.T @ shift)
    np.testing.assert_allclose(back[0], given["pose"][..., :3], atol=1e-12)
    np.testing.assert_allclose(back[1], given["transl"], atol=1e-12)


def test_kinematic_joints_are_the_ends_of_rigid_bones(hands, folder):
    """Those of a mesh of 16 points, the joints at rest, that belong to one bone each."""
    given = parameters(2)
    rotations = pose_to_rotations(given["pose"], hands.mean_pose)
    joints = kinematic_joints(hands, given["betas"], rotations, given["transl"])
    wrist = rest_wrist(hands, given["betas"]) + given["transl"]
    np.testing.assert_allclose(joints[:, :, 0], wrist, atol=1e-12)
    for column, file in enumerate(read_hands(folder).values()):
        arrays = file.arrays
        for sample in range(2):
            one = {key: value[sample, column] for key, value in given.items()}
            shaped = arrays["v_template"] + arrays["shapedirs"] @ one["betas"]
            points = {
                **arrays,
                "v_template": np.pad(arrays["J_regressor"] @ shaped, ((0, 762), (0, 0))),
                "shapedirs": np.zeros((778, 3, 10)),
                "posedirs": np.zeros((778, 3, 135)),
                "J_regressor": np.eye(16, 778),
                "weights": np.eye(778, 16),
            }
            expected = hand_mesh(points, **one)[:16]
            np.testing.assert_allclose(joints[sample, column], expected, atol=1e-9)
    regressed = mesh_of(hands, **given).joints[:, :, joint_order(HAND21, MANO16)]
    apart = np.linalg.norm(regressed - joints, axis=-1)
    assert 1e-3 < apart.max() < 2e-2  # and so the two are not to be mixed


# The left hand's shape


def test_the_official_left_hand_is_corrected_as_by_the_reader(hands, folder, official):
    files = read_hands(folder)
    right, left = (official[side]["shapedirs"] for side in HANDS)
    corrected = corrected_left_shapedirs(left, right)
    np.testing.assert_array_equal(corrected, files["left"].arrays["shapedirs"])
    assert not np.array_equal(corrected, left)
    np.testing.assert_array_equal(corrected_left_shapedirs(corrected, right), corrected)
    of_float32 = corrected_left_shapedirs(left.astype(np.float32), right.astype(np.float32))
    assert of_float32.dtype == np.float32
    np.testing.assert_array_equal(of_float32, corrected.astype(np.float32))


def test_no_betas_of_the_official_left_hand_are_those_of_the_corrected_one(official):
    right, left = (official[side]["shapedirs"] for side in HANDS)
    corrected = corrected_left_shapedirs(left, right)
    betas = parameters()["betas"][:, 1]
    for source, target in [(corrected, left), (left, corrected)]:
        with pytest.raises(ValueError, match=r"off by up to [\d.]+ mm.*corrected_left_shapedirs"):
            betas_for(betas, source, target)
        nearest = betas_for(betas, source, target, tolerance_m=1.0)
        wanted, best = source @ betas[0], target @ nearest[0]
        assert np.linalg.norm(best - wanted, axis=-1).max() > 1e-3
        for step in (1e-3, -1e-3):  # the nearest indeed
            for at in np.eye(10) * step:
                worse = target @ (nearest[0] + at)
                assert np.square(worse - wanted).sum() > np.square(best - wanted).sum()
        np.testing.assert_array_equal(betas_for(np.zeros(10), source, target), np.zeros(10))
    # Why: y and z ask for the same betas, x for the opposite ones. The stand-in hand has a shape
    # that moves nothing along x, and one that moves nothing along y and z: these there are.
    for part, sign in [(corrected[:, 0], 1), (corrected[:, 1:].reshape(-1, 10), -1)]:
        *_, (*_, still) = np.linalg.svd(part, full_matrices=False)
        assert np.abs(part @ still).max() < 1e-12
        np.testing.assert_allclose(betas_for(still, corrected, left), sign * still, atol=1e-9)


def test_betas_of_the_same_shapes_in_other_words(official):
    shapedirs = official["right"]["shapedirs"]
    mixed = shapedirs @ np.random.default_rng(0).normal(size=(10, 10))
    betas = parameters()["betas"]
    there = betas_for(betas, shapedirs, mixed)
    np.testing.assert_allclose(mixed @ there[1, 0], shapedirs @ betas[1, 0], atol=1e-9)
    np.testing.assert_allclose(betas_for(there, mixed, shapedirs), betas, atol=1e-9)


# A hand on a body


def body(seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Random global orientation (3,) and pose (63,)."""
    random = np.random.default_rng(seed)
    return random.normal(size=3), random.normal(0, 0.5, 63)


def in_space(joint: int, body_orient: np.ndarray, body_pose: np.ndarray) -> np.ndarray:
    """Rotation of a joint of the body, up its parents."""
    local = np.concatenate([body_orient, body_pose]).reshape(22, 3)
    turn = np.eye(3)
    while joint >= 0:
        turn = rotation_matrix(local[joint]) @ turn
        joint = BODY_PARENTS[joint]
    return turn


@pytest.mark.parametrize("side", HANDS)
def test_a_hand_on_a_body_lies_in_space_as_it_did_alone(side):
    body_orient, body_pose = body()
    alone = np.array([0.4, -1.1, 0.7])
    at = 3 * BODY21.index(f"{side}_wrist")
    body_pose[at : at + 3] = wrist_in_body(alone, body_orient, body_pose, side)
    joint = {"left": 20, "right": 21}[side]
    np.testing.assert_allclose(
        in_space(joint, body_orient, body_pose), rotation_matrix(alone), atol=1e-12
    )
    np.testing.assert_allclose(wrist_out_of_body(body_orient, body_pose, side), alone, atol=1e-12)
    batch = wrist_out_of_body(np.tile(body_orient, (4, 1)), np.tile(body_pose, (4, 1)), side)
    np.testing.assert_allclose(batch, np.tile(alone, (4, 1)), atol=1e-12)
    for wrong in ("Right", "both"):
        with pytest.raises(ValueError, match='must be "right" or "left"'):
            wrist_in_body(alone, body_orient, body_pose, wrong)


# smplx itself


@pytest.fixture(scope="module")
def smplx():
    pytest.importorskip("torch")
    return pytest.importorskip("smplx")


def layer_of(smplx, official, side, *, corrected=True, kind="MANO", **options):
    """smplx's hand of the official files, its left shape directions corrected on request."""
    import torch
    from smplx.utils import Struct

    made = [
        getattr(smplx, kind)(
            model_path="",
            data_struct=Struct(**official[hand]),
            is_rhand=hand == "right",
            use_pca=False,
            dtype=torch.float64,
            **options,
        )
        for hand in ("right", side)
    ]
    right, layer = made
    if side == "left" and corrected:
        shapedirs = corrected_left_shapedirs(layer.shapedirs.numpy(), right.shapedirs.numpy())
        layer.shapedirs.copy_(torch.tensor(shapedirs))
    return layer


def called(layer, arguments):
    import torch

    with torch.no_grad():
        output = layer(**{key: torch.tensor(value) for key, value in arguments.items()})
    return SimpleNamespace(vertices=output.vertices.numpy(), joints=output.joints.numpy())


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("side", HANDS)
def test_smplx_gives_the_same_hand(smplx, hands, official, side, flat):
    column = HANDS.index(side)
    given = {key: value[:, column] for key, value in parameters(4).items()}
    model = hands.hand(side)
    mesh = mesh_of(model, **given)
    there = to_smplx(**given, mean_pose=model.mean_pose, flat_hand_mean=flat)
    output = called(layer_of(smplx, official, side, flat_hand_mean=flat), there)
    np.testing.assert_allclose(output.vertices, mesh.vertices, atol=1e-6)

    with jax.enable_x64(True):
        joints = joints_from_vertices(model, output.vertices)
    np.testing.assert_allclose(joints, mesh.joints, atol=1e-5)
    rotations = pose_to_rotations(given["pose"], model.mean_pose)
    ends = kinematic_joints(model, given["betas"], rotations, given["transl"])
    assert output.joints.shape == (4, 16, 3)
    np.testing.assert_allclose(output.joints, ends, atol=1e-6)

    from smplx.vertex_ids import vertex_ids

    tips = {f"{name.title()}_4": vertex for name, vertex in vertex_ids["mano"].items()}
    assert list(tips.items()) == list(SMPLX_TIP_VERTICES.items())

    back = from_smplx(**there, mean_pose=model.mean_pose, flat_hand_mean=flat)
    np.testing.assert_allclose(mesh_of(model, **back).vertices, output.vertices, atol=1e-6)


def test_smplx_layers_of_matrices_give_the_same_hand(smplx, hands, official):
    for column, side in enumerate(HANDS):
        model = hands.hand(side)
        given = {key: value[:, column] for key, value in parameters().items()}
        rotations = pose_to_rotations(given["pose"], model.mean_pose)
        there = {
            "betas": given["betas"],
            "global_orient": rotations[:, :1],
            "hand_pose": rotations[:, 1:],
            "transl": given["transl"],
        }
        for flat in (False, True):  # adds nothing either way
            layer = layer_of(smplx, official, side, kind="MANOLayer", flat_hand_mean=flat)
            vertices = called(layer, there).vertices
            np.testing.assert_allclose(vertices, mesh_of(model, **given).vertices, atol=1e-6)


def test_smplx_with_the_official_left_file_gives_another_shape(smplx, hands, official):
    model = hands.hand("left")
    given = {key: value[:, 1] for key, value in parameters().items()}
    there = to_smplx(**given, mean_pose=model.mean_pose, flat_hand_mean=False)
    layer = layer_of(smplx, official, "left", corrected=False, flat_hand_mean=False)
    wrong = np.abs(called(layer, there).vertices - mesh_of(model, **given).vertices)
    assert wrong.max() > 2e-3
    given["betas"] = there["betas"] = np.zeros((3, 10))  # all that is the same without correction
    output = called(layer, there)
    np.testing.assert_allclose(output.vertices, mesh_of(model, **given).vertices, atol=1e-6)


def reconstruction_of(hands, side: str) -> Reconstruction:
    """A photograph's result with one hand in it."""
    column = HANDS.index(side)
    given = {key: value[0, column] for key, value in parameters().items()}
    model = hands.hand(side)
    mesh = mesh_of(model, **given)
    hand = Hand(
        side=side,
        present=True,
        source="fit",
        score=None,
        side_probability=None,
        vertices=mesh.vertices,
        joints=mesh.joints,
        joint_sigma_m=np.zeros(21),
        depth_sigma_m=0.0,
        keypoints_px=np.zeros((21, 2)),
        detected_px=None,
        detected_confidence=None,
        box_px=np.zeros(4),
        reprojection_px=0.0,
        explained=True,
        betas=given["betas"],
        rotations=pose_to_rotations(given["pose"], model.mean_pose),
        pose=given["pose"],
        full_pose=given["pose"] + np.pad(model.mean_pose, (3, 0)),
        transl=given["transl"],
    )
    photograph = photograph_of(np.zeros((4, 4, 3), np.uint8))
    return Reconstruction(
        photograph=photograph,
        camera=camera_of(photograph),
        persons=(Person(**{side: hand}),),
        faces=np.asarray(hands.faces),
        messages=(),
        hand_model="MANO files",
        seconds=0.0,
    )


def test_the_json_names_what_corrects_a_left_hand(hands):
    note = reconstruction_of(hands, "left").to_dict()["left_shape"]
    assert f"{corrected_left_shapedirs.__module__}.{corrected_left_shapedirs.__name__}" in note


@pytest.mark.parametrize("side", HANDS)
def test_the_json_of_a_photograph_gives_its_mesh_in_smplx(smplx, hands, official, side):
    result = reconstruction_of(hands, side)
    content = json.loads(json.dumps(result.to_dict()))
    said = content["persons"][0][side]
    for flat, key in [(False, "without_mean"), (True, "with_mean")]:
        pose = np.array([said[f"pose_axis_angle_{key}"]])
        there = {
            "betas": np.array([said["betas"]]),
            "global_orient": pose[:, :3],
            "hand_pose": pose[:, 3:],
            "transl": np.array([said["transl_m"]]),
        }
        layer = layer_of(smplx, official, side, flat_hand_mean=flat)
        vertices = called(layer, there).vertices[0]
        np.testing.assert_allclose(vertices, result.hands[0].vertices, atol=1e-5)


def test_the_pages_lines_give_the_mesh(smplx, hands, folder, tmp_path, monkeypatch):
    (tmp_path / "hands").mkdir()
    result = reconstruction_of(hands, "left")
    (tmp_path / "hands/photo_hands.json").write_text(json.dumps(result.to_dict()))
    assert convert.main([str(folder), "--output_dir", str(tmp_path / "MANO")]) == 0
    page = (Path(__file__).parents[1] / "docs/conventions.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks[:2]:
        exec(block, names)
    (expected,) = result.hands
    vertices = names["output"].vertices[0].detach().numpy()
    np.testing.assert_allclose(vertices, expected.vertices, atol=1e-5)
    np.testing.assert_allclose(names["mano_again"]["pose"], expected.pose, atol=1e-6)
    corrected = names["left"].shapedirs.clone()
    names["left"].shapedirs[:, 0] *= -1  # as if from the official pickle
    for block in blocks[2:]:
        exec(block, names)
    assert (names["left"].shapedirs == corrected).all()


def stand_in_body(official) -> dict[str, np.ndarray]:
    """A file laid out as SMPL-X's: the two hands, and vertices that are the body's joints."""
    random = np.random.default_rng(0)
    parents = [*BODY_PARENTS, 15, 15, 15]
    for wrist in (20, 21):
        for _ in range(5):
            parents += [wrist, len(parents), len(parents) + 1]
    count = 10475
    arrays = {
        "v_template": random.normal(size=(count, 3)),
        "shapedirs": np.zeros((count, 3, 20)),
        "posedirs": np.zeros((count, 3, 54 * 9), np.float32),
        "J_regressor": np.zeros((55, count)),
        "weights": np.zeros((count, 55)),
        "f": np.zeros((4, 3), np.int64),
        "kintree_table": np.array([parents, range(55)]),
        "lmk_faces_idx": np.zeros(51, np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
    }
    arrays["weights"][:, 0] = 1
    arrays["J_regressor"][range(55), range(2000, 2055)] = 1
    for column, side in enumerate(HANDS):
        hand = official[side]
        first = {"left": 25, "right": 40}[side]
        wrist = {"left": 20, "right": 21}[side]
        joints = [wrist, *range(first, first + 15)]
        rows = slice(778 * column, 778 * (column + 1))
        arrays["v_template"][rows] = hand["v_template"] + 0.7 * MIRROR * (1 - 2 * column)
        arrays["J_regressor"][joints] = 0
        arrays["J_regressor"][joints, rows] = hand["J_regressor"]
        arrays["weights"][rows] = 0
        arrays["weights"][rows, joints] = hand["weights"]
        arrays["posedirs"][rows, :, 9 * (first - 1) : 9 * (first + 14)] = hand["posedirs"]
        arrays[f"hands_mean{side[0]}"] = hand["hands_mean"]
        arrays[f"hands_components{side[0]}"] = hand["hands_components"]
    return arrays


def test_smplx_hands_on_a_body(smplx, hands, official, tmp_path):
    import torch

    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **stand_in_body(official))
    body_orient, body_pose = body()
    given = {key: value[0] for key, value in parameters().items()}
    given["betas"] = np.zeros((2, 10))  # a body has its own
    wrist = rest_wrist(hands, given["betas"])
    mesh = mesh_of(hands, **{**given, "transl": -wrist})
    for flat in (False, True):
        there = to_smplx(**given, mean_pose=hands.mean_pose, flat_hand_mean=flat)
        arguments = {"global_orient": body_orient}
        for column, side in enumerate(HANDS):
            at = 3 * BODY21.index(f"{side}_wrist")
            alone = there["global_orient"][column]
            body_pose[at : at + 3] = wrist_in_body(alone, body_orient, body_pose, side)
            arguments[f"{side}_hand_pose"] = there["hand_pose"][column]
        model = smplx.SMPLX(
            str(tmp_path / "SMPLX_NEUTRAL.npz"),
            use_pca=False,
            flat_hand_mean=flat,
            dtype=torch.float64,
        )
        arguments["body_pose"] = body_pose
        output = called(model, {key: value[None] for key, value in arguments.items()})
        for column, side in enumerate(HANDS):
            joint = {"left": 20, "right": 21}[side]
            vertices = output.vertices[0, 778 * column : 778 * (column + 1)]
            found = vertices - output.joints[0, joint]
            np.testing.assert_allclose(found, mesh.vertices[column], atol=1e-5)
