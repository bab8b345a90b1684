"""The stand-in hand: MANO's sizes, a clean surface, and skin that behaves when it bends."""

import re
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

import data_pipeline
import er_jax
from data_pipeline.synthetic.poses import (
    angle_limits,
    axis_angle_from,
    gestures,
    joint_axes,
    sample_pose,
    self_overlap_mm,
)
from er_jax.mano import stand_in
from er_jax.mano.files import check_hand
from er_jax.mano.stand_in import stand_in_arrays
from tools.stand_in_hand import __main__ as generator
from tools.stand_in_hand import picture
from tools.stand_in_hand.deformation import SHAPE_NAMES

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
FINGERS = ("Index", "Middle", "Pinky", "Ring", "Thumb")
TIPS = {"Index": 317, "Middle": 445, "Pinky": 673, "Ring": 556, "Thumb": 745}


@pytest.fixture(scope="module")
def right() -> dict[str, np.ndarray]:
    return stand_in_arrays("right")


@pytest.fixture(scope="module")
def left() -> dict[str, np.ndarray]:
    return stand_in_arrays("left")


def rotation(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    if angle < 1e-15:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def bone_rotations(pose: np.ndarray) -> np.ndarray:
    """World rotation of each joint, (16, 3, 3), from axis-angle relative to the flat hand (45)."""
    world = np.tile(np.eye(3), (16, 1, 1))
    for joint in range(1, 16):
        world[joint] = world[PARENTS[joint]] @ rotation(pose[3 * joint - 3 : 3 * joint])
    return world


def posed(hand: dict[str, np.ndarray], pose: np.ndarray, betas: np.ndarray | None = None):
    """Vertices and joints by linear blend skinning, straight from MANO's definition."""
    shaped = hand["v_template"] + (0 if betas is None else hand["shapedirs"] @ betas)
    rest = hand["J_regressor"] @ shaped
    local = np.stack([rotation(vector) for vector in pose.reshape(15, 3)])
    shaped = shaped + hand["posedirs"] @ (local - np.eye(3)).ravel()
    world, joints = bone_rotations(pose), rest.copy()
    for joint in range(1, 16):
        parent = PARENTS[joint]
        joints[joint] = joints[parent] + world[parent] @ (rest[joint] - rest[parent])
    moved = np.einsum("jab,jvb->jva", world, shaped - rest[:, None]) + joints[:, None]
    return np.einsum("vj,jva->va", hand["weights"], moved), joints


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = vertices[faces].swapaxes(0, 1)
    return np.cross(b - a, c - a)


def border(faces: np.ndarray) -> dict[int, int]:
    edges = {(int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3)}
    return {a: b for a, b in edges if (b, a) not in edges}


def capped(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wrist closed by a fan about its centre."""
    loop = border(faces)
    lid = [(b, a, len(vertices)) for a, b in loop.items()]
    return np.vstack([vertices, vertices[list(loop)].mean(axis=0)]), np.vstack([faces, lid])


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    points, closed = capped(vertices, faces)
    a, b, c = (points - points[-1])[closed].swapaxes(0, 1)
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6)


def winding(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """How often the capped surface goes round each point (van Oosterom and Strackee 1983)."""
    corners, closed = capped(vertices, faces)
    a, b, c = (corners[closed[:, k]] - points[:, None] for k in range(3))
    la, lb, lc = (np.linalg.norm(side, axis=-1) for side in (a, b, c))
    over = np.einsum("pfi,pfi->pf", a, np.cross(b, c))
    under = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return np.arctan2(over, under).sum(axis=1) / (2 * np.pi)


def flexed(near: float, middle: float, far: float) -> np.ndarray:
    """The four fingers bent at their three joints, degrees; the thumb flat."""
    angles = np.zeros((15, 3))
    angles[:12, 0] = np.tile([near, middle, far], 4)
    return axis_angle_from(np.radians(angles))


def test_sizes_and_keys_are_manos(right, left):
    shapes = {
        "v_template": (778, 3),
        "shapedirs": (778, 3, 10),
        "posedirs": (778, 3, 135),
        "J_regressor": (16, 778),
        "weights": (778, 16),
        "f": (1538, 3),
        "kintree_table": (2, 16),
        "hands_mean": (45,),
        "hands_components": (45, 45),
    }
    for hand in (right, left):
        assert {key: value.shape for key, value in hand.items()} == shapes
        for key, value in hand.items():
            whole = key in ("f", "kintree_table")
            assert value.dtype == (np.int64 if whole else np.float64), key
            assert np.isfinite(value).all()
        assert hand["kintree_table"][0, 0] == 2**32 - 1
        assert tuple(hand["kintree_table"][0, 1:]) == PARENTS[1:]
        assert tuple(hand["kintree_table"][1]) == tuple(range(16))


def test_unknown_side_is_refused():
    with pytest.raises(ValueError, match="both"):
        stand_in_arrays("both")


def test_callers_cannot_change_it():
    stand_in_arrays("right")["v_template"][:] = 0
    assert stand_in_arrays("right")["v_template"].any()


@pytest.fixture(scope="module")
def drawn_anew(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("generator") / "stand_in.npz"
    generator.main([f"--output={file}"])
    return file


def test_drawn_anew_it_is_the_hand_in_the_package(drawn_anew, right):
    with np.load(drawn_anew, allow_pickle=False) as archive:
        anew = dict(archive)
    check_hand(anew, drawn_anew)
    assert anew.keys() == right.keys()
    for key, value in anew.items():
        np.testing.assert_allclose(value, right[key], rtol=0, atol=1e-7, err_msg=key)
        assert value.dtype == right[key].dtype, key
    pose = axis_angle_from(gestures()["fist"])
    there, here = (posed(hand, pose, np.full(10, 2.0))[0] for hand in (anew, right))
    np.testing.assert_allclose(here, there, rtol=0, atol=1e-6)


def test_the_file_is_small_and_the_same_whenever_it_is_written(drawn_anew):
    for file in (drawn_anew, stand_in.FILE):
        assert file.stat().st_size < 2e6
        with zipfile.ZipFile(file) as archive:
            assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_that_is_installed_imports_the_generator():
    for package in (er_jax, data_pipeline):
        for file in Path(package.__file__).parent.rglob("*.py"):
            assert not re.search(r"^\s*(from|import) tools\b", file.read_text(), re.M), file


def test_surface_is_one_sheet_with_one_hole_at_the_wrist(right):
    faces = right["f"]
    directed = Counter((int(f[k]), int(f[(k + 1) % 3])) for f in faces for k in range(3))
    assert max(directed.values()) == 1, "an edge runs twice in one direction: not oriented"
    assert len(np.unique(faces)) == 778
    loop = border(faces)
    assert len(loop) == 16
    start = vertex = next(iter(loop))
    for _ in range(16):
        vertex = loop[vertex]
    assert vertex == start and len(set(loop.values())) == 16
    undirected = {tuple(sorted(edge)) for edge in directed}
    assert 778 - len(undirected) + 1538 == 1
    assert np.ptp(right["v_template"][list(loop), 0]) < 1e-9
    assert right["v_template"][list(loop), 0].min() >= right["v_template"][:, 0].max() - 1e-9


def test_faces_are_well_shaped_and_look_outwards(right, left):
    for hand in (right, left):
        vertices, faces = hand["v_template"], hand["f"]
        normals = face_normals(vertices, faces)
        sides = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, -1, axis=1)], axis=-1)
        quality = 2 * np.sqrt(3) * np.linalg.norm(normals, axis=1) / (sides**2).sum(axis=1)
        assert quality.min() > 0.1 and np.mean(quality < 0.3) < 0.01
        assert sides.min() > 0.5e-3 and sides.max() < 25e-3
        assert 250e-6 < volume(vertices, faces) < 420e-6
        middles = vertices[faces].mean(axis=1)
        unit = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        sample = slice(None, None, 5)
        assert np.all(winding((middles + 4e-4 * unit)[sample], vertices, faces) < 0.5)
        assert np.all(winding((middles - 4e-4 * unit)[sample], vertices, faces) > 0.5)


def test_no_edge_is_folded(right):
    normals = face_normals(right["v_template"], right["f"])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    owner = {
        (int(f[k]), int(f[(k + 1) % 3])): i for i, f in enumerate(right["f"]) for k in range(3)
    }
    pairs = np.array([(i, owner[b, a]) for (a, b), i in owner.items() if (b, a) in owner])
    angle = np.degrees(
        np.arccos(np.clip((normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1), -1, 1))
    )
    assert angle.max() < 100
    assert np.mean(angle > 60) < 0.02


def test_left_is_the_mirror_of_right(right, left):
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.5, 45), rng.normal(size=10)
    vertices, joints = posed(right, pose, betas)
    mirrored = (pose.reshape(15, 3) * (1, -1, -1)).ravel()
    left_vertices, left_joints = posed(left, mirrored, betas)
    np.testing.assert_allclose(left_vertices, vertices * (-1, 1, 1), atol=1e-14)
    np.testing.assert_allclose(left_joints, joints * (-1, 1, 1), atol=1e-14)
    np.testing.assert_array_equal(np.sort(left["f"], axis=1), np.sort(right["f"], axis=1))
    turned = (right["hands_mean"].reshape(15, 3) * (1, -1, -1)).ravel()
    np.testing.assert_array_equal(left["hands_mean"], turned)


def test_it_lies_as_mano_does_and_has_a_hands_proportions(right):
    vertices, joints = right["v_template"], right["J_regressor"] @ right["v_template"]
    wrist, tips = joints[0], {name: vertices[index] for name, index in TIPS.items()}
    assert all(tip[0] < wrist[0] - 0.05 for tip in tips.values()), "fingers point to −x"
    assert (
        tips["Thumb"][2] > tips["Index"][2] > tips["Middle"][2] > tips["Ring"][2] > tips["Pinky"][2]
    )
    assert 0.18 < np.linalg.norm(tips["Middle"] - wrist) < 0.19
    of_thumb = right["weights"][:, 13:].sum(axis=1) > 0.1
    at_knuckles = ~of_thumb & (np.abs(vertices[:, 0] - joints[[1, 4, 7, 10], 0].mean()) < 0.012)
    assert 0.074 < np.ptp(vertices[at_knuckles, 2]) < 0.09
    at_wrist = np.abs(vertices[:, 0] - wrist[0]) < 0.008
    breadth, thickness = np.ptp(vertices[at_wrist, 2]), np.ptp(vertices[at_wrist, 1])
    assert 0.045 < breadth < 0.062 and thickness < 0.75 * breadth
    reach = {name: np.linalg.norm(tip - wrist) for name, tip in tips.items()}
    assert reach["Middle"] > max(reach["Index"], reach["Ring"]) > reach["Pinky"] > reach["Thumb"]


def test_tips_are_the_ends_of_their_fingers(right):
    vertices = right["v_template"]
    joints = right["J_regressor"] @ vertices
    own = np.argmax(right["weights"], axis=1)
    for finger, name in enumerate(FINGERS):
        last = 3 + 3 * finger
        tip = vertices[TIPS[name]]
        along = (tip - joints[last]) / np.linalg.norm(tip - joints[last])
        of_finger = np.flatnonzero(own == last)
        assert of_finger[np.argmax(vertices[of_finger] @ along)] == TIPS[name]
    assert any({444, 445} <= set(face) for face in right["f"].tolist())
    assert np.linalg.norm(vertices[444] - vertices[445]) < 0.01


def test_weights_and_regressor_are_shares(right):
    for shares in (right["weights"], right["J_regressor"]):
        assert shares.min() >= 0
        np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    assert np.count_nonzero(right["weights"], axis=1).max() <= 6
    assert np.count_nonzero(right["J_regressor"], axis=1).min() >= 8
    assert np.count_nonzero(right["J_regressor"], axis=1).max() <= 150
    edges = np.vstack([right["f"][:, [0, 1]], right["f"][:, [1, 2]], right["f"][:, [2, 0]]])
    weights = right["weights"]
    jump = np.abs(weights[edges[:, 0]] - weights[edges[:, 1]]).max(axis=1)
    assert jump.max() < 0.75 and np.mean(jump > 0.5) < 0.03


def test_joints_lie_inside_the_flesh(right):
    joints = right["J_regressor"] @ right["v_template"]
    assert np.all(winding(joints, right["v_template"], right["f"]) > 0.9)


def test_pose_components_are_orthonormal(right):
    components = right["hands_components"]
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-12)


FULL_FLEXION = {
    "knuckles": flexed(90, 0, 0),
    "middle joints": flexed(0, 100, 0),
    "end joints": flexed(0, 0, 75),
    "all": flexed(85, 100, 60),
    "fist": axis_angle_from(gestures()["fist"]),
}


@pytest.mark.parametrize("name", FULL_FLEXION)
def test_full_flexion_keeps_volume_and_faces(right, name):
    pose, faces = FULL_FLEXION[name], right["f"]
    vertices, _ = posed(right, pose)
    assert volume(vertices, faces) == pytest.approx(volume(right["v_template"], faces), rel=0.05)
    normals, rest = face_normals(vertices, faces), face_normals(right["v_template"], faces)
    assert np.linalg.norm(normals, axis=1).min() / 2 > 0.05e-6
    blend = np.einsum("vj,jab->vab", right["weights"], bone_rotations(pose))[faces].mean(axis=1)
    left_factor, _, right_factor = np.linalg.svd(blend)
    expected = np.einsum("fab,fb->fa", left_factor @ right_factor, rest)
    # in the folds under a bent joint a face or two may turn over
    assert np.mean((normals * expected).sum(axis=1) < 0) < 0.01


# the knuckles of middle and ring finger share their skin with both neighbours
@pytest.mark.parametrize("joint", [j for j in range(1, 16) if j not in (4, 10)])
def test_correctives_hold_the_ring_around_a_bent_joint(right, joint):
    """Half-way vertices keep their distance from the joint, which plain blending shortens."""
    k = (joint - 1) % 3
    angles = np.zeros((15, 3))
    angles[joint - 1, 0] = np.radians(38 if joint == 13 else 75)
    pose = axis_angle_from(angles)
    below = [joint + i for i in range(3 - k)]
    own = right["weights"][:, below].sum(axis=1)
    parent = right["weights"][:, PARENTS[joint]]
    half = (np.abs(own - 0.5) < 0.2) & (own + parent > 0.97)
    assert half.sum() >= 4
    joints = right["J_regressor"] @ right["v_template"]
    rest = np.linalg.norm(right["v_template"][half] - joints[joint], axis=1)

    def kept(hand: dict[str, np.ndarray]) -> float:
        vertices, moved = posed(hand, pose)
        return float(np.mean(np.linalg.norm(vertices[half] - moved[joint], axis=1) / rest))

    plain = kept(right | {"posedirs": np.zeros_like(right["posedirs"])})
    assert abs(kept(right) - 1) < 0.05
    assert abs(kept(right) - 1) < abs(plain - 1) + 0.03


def test_correctives_are_small_and_near_their_joint(right):
    strength = np.abs(right["posedirs"]).max(axis=(0, 1))
    assert strength.max() < 0.015
    for joint in range(1, 16):
        block = np.abs(right["posedirs"][:, :, 9 * joint - 9 : 9 * joint]).max(axis=(1, 2))
        assert block.max() > 1e-4
        centre = (right["J_regressor"] @ right["v_template"])[joint]
        away = np.linalg.norm(right["v_template"] - centre, axis=1) > 0.05
        assert block[away].max() < 1.5e-3


def measures(hand: dict[str, np.ndarray], betas: np.ndarray) -> dict[str, float]:
    """Lengths that people would measure on a hand, metres."""
    vertices = hand["v_template"] + hand["shapedirs"] @ betas
    joints = hand["J_regressor"] @ vertices
    chains = {
        name: np.vstack([joints[1 + 3 * i : 4 + 3 * i], vertices[TIPS[name]]])
        for i, name in enumerate(FINGERS)
    }
    length = {
        name: float(np.linalg.norm(np.diff(chain, axis=0), axis=1).sum())
        for name, chain in chains.items()
    }
    near_knuckles = np.abs(
        hand["v_template"][:, 0] - (hand["J_regressor"] @ hand["v_template"])[4, 0]
    )
    palm = vertices[near_knuckles < 0.01]
    ends = vertices[np.argmax(hand["weights"], axis=1) == 6]
    return {
        **length,
        "palm": float(np.linalg.norm(joints[4] - joints[0])),
        "breadth": float(np.ptp(palm[:, 2])),
        "thickness": float(np.ptp(palm[:, 1])),
        "end breadth": float(np.ptp(ends[:, 2])),
    }


GROWS = {
    "size": ("Index", "Middle", "Pinky", "Ring", "Thumb", "palm", "breadth", "thickness"),
    "finger length": ("Index", "Middle", "Pinky", "Ring", "Thumb"),
    "breadth": ("breadth",),
    "stoutness": ("thickness", "end breadth"),
    "palm length": ("palm",),
    "thumb length": ("Thumb",),
    "index against ring": ("Index",),
    "little finger length": ("Pinky",),
    "middle finger length": ("Middle",),
    "fingertips": ("end breadth",),
}


@pytest.mark.parametrize("name", SHAPE_NAMES)
def test_a_shape_direction_changes_what_its_name_says(right, name):
    unit = np.zeros(10)
    unit[SHAPE_NAMES.index(name)] = 1
    before, after = measures(right, 0 * unit), measures(right, unit)
    change = {key: after[key] / before[key] - 1 for key in before}
    for key in GROWS[name]:
        assert 0.015 < change[key] < 0.12, (key, change)
    lengths = {key for key in (*FINGERS, "palm") if key not in GROWS[name]}
    if name == "index against ring":
        assert change["Ring"] < -0.015
        lengths.discard("Ring")
    assert all(abs(change[key]) < 0.01 for key in lengths), change
    moved = np.linalg.norm(right["shapedirs"] @ unit, axis=1)
    assert 0.5e-3 < moved.max() < 10e-3


def test_shapes_three_units_away_are_still_hands(right):
    rng = np.random.default_rng(4)
    for betas in (*(3.0 * np.eye(10)), *(-3.0 * np.eye(10)), *rng.normal(size=(10, 10))):
        vertices = right["v_template"] + right["shapedirs"] @ betas
        normals = face_normals(vertices, right["f"])
        rest = face_normals(right["v_template"], right["f"])
        cosine = (
            (normals * rest).sum(1) / np.linalg.norm(normals, axis=1) / np.linalg.norm(rest, axis=1)
        )
        assert cosine.min() > 0.1
        joints = right["J_regressor"] @ vertices
        assert np.all(winding(joints, vertices, right["f"]) > 0.9)


def test_flexion_bends_towards_the_palm(right):
    for finger, name in enumerate(FINGERS[:4]):
        for k in range(3):
            angles = np.zeros((15, 3))
            angles[3 * finger + k, 0] = np.radians(40)
            vertices, _ = posed(right, axis_angle_from(angles))
            tip = TIPS[name]
            assert vertices[tip, 1] < right["v_template"][tip, 1] - 0.01


def test_sampled_poses_respect_the_limits(right):
    lower, upper = angle_limits()
    assert lower.shape == upper.shape == (15, 3) and np.all(lower < upper)
    poses = sample_pose(np.random.default_rng(1), 500)
    full = (poses + right["hands_mean"]).reshape(-1, 15, 3)
    for vectors in (full, right["hands_mean"].reshape(15, 3)):
        angles = np.einsum("jxa,...jx->...ja", joint_axes(), vectors)
        assert np.all(angles >= lower - 1e-9) and np.all(angles <= upper + 1e-9)
    np.testing.assert_array_equal(poses, sample_pose(np.random.default_rng(1), 500))
    bend = full[:, :12:3, 2]
    assert bend.min() < 0.1 and bend.max() > 1.3, "from open to closed"
    assert sample_pose(np.random.default_rng(1), 0).shape == (0, 45)


def test_fingers_of_a_sample_flex_together(right):
    full = sample_pose(np.random.default_rng(2), 800) + right["hands_mean"]
    flexion = full.reshape(-1, 15, 3)[:, :12, 2].reshape(-1, 4, 3)
    for finger in range(4):
        assert np.corrcoef(flexion[:, finger, 1], flexion[:, finger, 2])[0, 1] > 0.8
    assert np.corrcoef(flexion[:, 2, 0], flexion[:, 3, 0])[0, 1] > 0.7


def test_sampled_poses_hardly_run_into_themselves(right):
    """No more than a few vertices 3 mm inside another part, as in the creases of a fist."""
    poses = sample_pose(np.random.default_rng(3), 10) + right["hands_mean"]
    for pose in poses:
        vertices, _ = posed(right, pose)
        normals = np.zeros((778, 3))
        for k in range(3):
            np.add.at(normals, right["f"][:, k], face_normals(vertices, right["f"]))
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        some = slice(None, None, 2)
        outside = winding((vertices + 3e-3 * normals)[some], vertices, right["f"])
        inside = winding((vertices - 1e-5 * normals)[some], vertices, right["f"])
        assert np.sum((outside > 0.75) & (inside > 1.5)) <= 10


def test_gestures_touch_but_do_not_overlap():
    overlap = self_overlap_mm(np.stack(list(gestures().values())))
    assert overlap.max() < 1.5


def test_the_image_shows_a_hand_from_every_side(tmp_path):
    picture.main([str(tmp_path / "hand.png")])
    drawn = cv2.imread(str(tmp_path / "hand.png"))
    cell_px = picture.WIDTH_PX // len(picture.POSES)
    for column, name in enumerate(picture.POSES):
        for row in range(4):
            cell = drawn[28 + row * cell_px :, column * cell_px :][:cell_px, :cell_px]
            hand = (cell < 250).any(axis=-1)
            assert 0.05 < hand.mean() < 0.5, (name, row)
            assert not (hand[[0, -1]].any() or hand[:, [0, -1]].any()), "cut off"
    shown = cv2.imread(str(Path(__file__).parents[1] / "docs/stand_in_hand.png"))
    assert shown.shape == drawn.shape, "docs/stand_in_hand.png is another image: draw it anew"
