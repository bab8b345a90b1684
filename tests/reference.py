"""The specification once more: targets, losses and metrics in plain NumPy, float64, loop by loop.

It is written from the formulas alone and shares nothing with the package, not even the names of
joints, so that the two can only agree where both are right. It is slow, and takes one sample and
one hand at a time. Hands are always (right, left). A sample is a dict of arrays under the names of
`er_jax.supervision.targets.Targets`, without a batch axis.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

Arrays = Mapping[str, np.ndarray]

REGRESSED = ["Wrist"]  # rows of MANO's joint regressor
REGRESSED += ["Index_1", "Index_2", "Index_3", "Middle_1", "Middle_2", "Middle_3"]
REGRESSED += ["Pinky_1", "Pinky_2", "Pinky_3", "Ring_1", "Ring_2", "Ring_3"]
REGRESSED += ["Thumb_1", "Thumb_2", "Thumb_3"]
TIPS = {"Thumb_4": 745, "Index_4": 317, "Middle_4": 445, "Ring_4": 556, "Pinky_4": 673}
JOINTS = ["Wrist"]  # of one hand, in the network's order
JOINTS += ["Thumb_1", "Thumb_2", "Thumb_3", "Thumb_4", "Index_1", "Index_2", "Index_3", "Index_4"]
JOINTS += ["Middle_1", "Middle_2", "Middle_3", "Middle_4", "Ring_1", "Ring_2", "Ring_3", "Ring_4"]
JOINTS += ["Pinky_1", "Pinky_2", "Pinky_3", "Pinky_4"]
LOSS_WEIGHTS = {
    "rel_trans": 1,
    "mano_pose": 1,
    "mano_shape": 1,
    "joint_cam": 10,
    "mano_joint_cam": 10,
    "joint_img": 1,
    "mano_joint_img": 1,
    "joint_proj": 1,
    "presence": 0.3,
    "depth": 0,
}


# The MANO hand


def rotation_matrix(axis_angle: np.ndarray) -> np.ndarray:
    """I + sin θ K + (1 − cos θ) K² (Rodrigues)."""
    angle = math.sqrt(float(axis_angle @ axis_angle))
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = axis_angle / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def rotation_vector(matrix: np.ndarray) -> np.ndarray:
    """The axis, an eigenvector of eigenvalue 1, times the angle; not for half turns."""
    values, vectors = np.linalg.eig(matrix)
    axis = np.real(vectors[:, np.argmin(abs(values - 1))])
    twice_sine = np.array(
        [matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]]
    )
    angle = math.atan2(float(axis @ twice_sine) / 2, (np.trace(matrix) - 1) / 2)
    return axis * angle


def hand_mesh(mano: Arrays, betas: np.ndarray, pose: np.ndarray, transl: np.ndarray) -> np.ndarray:
    """Vertices (778, 3) of one posed hand, from arrays under MANO's own keys."""
    shaped = mano["v_template"] + (mano["shapedirs"] * betas).sum(-1)
    rest = mano["J_regressor"] @ shaped
    angles = pose.astype(np.float64).copy()
    angles[3:] += mano["hands_mean"]
    turns = [rotation_matrix(angles[3 * joint : 3 * joint + 3]) for joint in range(16)]
    bends = np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    bent = shaped + (mano["posedirs"] * bends).sum(-1)

    moved_turn, moved_joint = [turns[0]], [rest[0]]
    for joint in range(1, 16):
        parent = int(mano["kintree_table"][0, joint])
        moved_turn.append(moved_turn[parent] @ turns[joint])
        bone = rest[joint] - rest[parent]
        moved_joint.append(moved_joint[parent] + moved_turn[parent] @ bone)
    vertices = np.zeros((778, 3))
    for joint in range(16):
        moved = (bent - rest[joint]) @ moved_turn[joint].T + moved_joint[joint]
        vertices += mano["weights"][:, joint, None] * moved
    return vertices + transl


def joints_of(mano: Arrays, vertices: np.ndarray, tips: Mapping[str, int] = TIPS) -> np.ndarray:
    """Joints (21, 3) of one mesh."""
    regressed = mano["J_regressor"] @ vertices
    return np.array(
        [
            vertices[tips[name]] if name in tips else regressed[REGRESSED.index(name)]
            for name in JOINTS
        ]
    )


# Targets


def image_to_crop(
    bbox: np.ndarray, width: int, scale: float, degrees: float, flip: bool, input_size: int
) -> np.ndarray:
    """`img2bb` (2, 3): [A | middle − A·centre]."""
    centre = np.array([bbox[0] + bbox[2] / 2, bbox[1] + bbox[3] / 2], np.float64)
    if flip:
        centre[0] = width - 1 - centre[0]
    r = math.radians(degrees)
    turn = np.array([[math.cos(r), math.sin(r)], [-math.sin(r), math.cos(r)]])
    affine = input_size / (float(bbox[2]) * scale) * turn
    return np.column_stack([affine, input_size / 2 - affine @ centre])


def targets_of(
    manos: Sequence[Arrays],
    record: Mapping[str, np.ndarray],
    augmentation: tuple[float, float, bool],
    *,
    input_size: int = 256,
    grid: int = 8,
    depth_bins: int = 8,
    depth_box_m: float = 0.4,
) -> dict[str, np.ndarray]:
    """Every target of one record under (scale, rotation in degrees, flip).

    A joint that the annotation calls not visible in this view is none of the image: it counts as
    truncated. Fits that are given as meshes stand for the joints of hands without. A hand all of
    whose annotated joints lie outside the crop is not there, whatever its type says.
    """
    scale, degrees, flip = augmentation
    r = math.radians(-degrees)
    about_z = np.array([[math.cos(r), -math.sin(r), 0], [math.sin(r), math.cos(r), 0], [0, 0, 1]])
    mirror = np.diag([-1.0, 1.0, 1.0]) if flip else np.eye(3)
    turn = about_z @ mirror
    camera = np.asarray(record["camera_rotation"], np.float64)
    shift = np.asarray(record["camera_translation_mm"], np.float64) / 1000
    width = int(record["image_size_px"][0])
    affine = image_to_crop(record["bbox_px"], width, scale, degrees, flip, input_size)

    def cells(points: np.ndarray) -> np.ndarray:
        result = []
        for x, y, z in points:
            u = record["focal_px"][0] * x / z + record["princpt_px"][0]
            v = record["focal_px"][1] * y / z + record["princpt_px"][1]
            if flip:
                u = width - 1 - u
            in_crop = affine @ [u, v, 1] / input_size * grid
            in_box = ((z - points[0, 2]) / (depth_box_m / 2) + 1) / 2 * depth_bins
            result.append([*in_crop, in_box])
        return np.array(result)

    def inside(points: np.ndarray) -> np.ndarray:
        limits = [grid, grid, depth_bins]
        return np.array(
            [all(0 <= value < most for value, most in zip(p, limits, strict=True)) for p in points]
        )

    names = ["joint_cam", "joint_img", "mano_joint_cam", "mano_joint_img", "mano_mesh_cam"]
    names += ["mano_pose", "mano_shape", "joint_valid", "joint_trunc", "mano_joint_trunc"]
    names += ["mano_hand_valid", "mano_pose_valid", "wrist"]
    hands: list[dict[str, np.ndarray]] = []
    for hand in range(2):
        mesh_given = bool(record.get("mano_vertices_valid", np.zeros(2, bool))[hand])
        joints = record["joint_world_mm"][hand].astype(np.float64) / 1000 @ camera.T + shift
        valid = record["joint_valid_world"][hand].astype(bool)
        seen = record["joint_valid_view"][hand].astype(bool)
        pose = record["mano_pose"][hand].astype(np.float64).reshape(16, 3)
        if mesh_given:
            mesh = record["mano_vertices_m"][hand].astype(np.float64)
            if not valid.any():
                joints, valid, seen = joints_of(manos[hand], mesh), *np.ones((2, 21), bool)
        else:
            in_world = hand_mesh(
                manos[hand],
                record["mano_betas"][hand],
                pose.ravel(),
                record["mano_trans_m"][hand].astype(np.float64),
            )
            mesh = in_world @ camera.T + shift
        mesh_joints = joints_of(manos[hand], mesh)
        fitted = bool(record["mano_valid"][hand])
        joint_cells, mesh_cells = cells(joints), cells(mesh_joints)
        root = rotation_vector(turn @ camera @ rotation_matrix(pose[0]) @ mirror)
        fingers = [[x, -y, -z] if flip else [x, y, z] for x, y, z in pose[1:]]
        values = [(joints - joints[0]) @ turn.T, joint_cells]
        values += [(mesh_joints - mesh_joints[0]) @ turn.T, mesh_cells]
        values += [(mesh - mesh_joints[0]) @ turn.T]
        values += [np.concatenate([root, *fingers]), record["mano_betas"][hand].astype(np.float64)]
        values += [valid, valid & seen & inside(joint_cells)]
        values += [(fitted or mesh_given) & inside(mesh_cells)]
        values += [np.array(fitted or mesh_given), np.array(fitted), joints[0]]
        hands.append(dict(zip(names, values, strict=True)))
    right, left = hands[::-1] if flip else hands
    targets = {name: np.stack([right[name], left[name]]) for name in names if name != "wrist"}
    targets["rel_trans"] = turn @ (left["wrist"] - right["wrist"])
    targets["rel_trans_valid"] = right["joint_valid"][0] & left["joint_valid"][0]
    targets["wrist_cam"] = np.array([turn @ right["wrist"], turn @ left["wrist"]])
    # Of records whose camera is known and whose joints are marked in 3D alone.
    targets["wrist_cam_valid"] = targets["joint_valid"][:, 0]
    targets["joint_xy_valid"] = targets["joint_valid"]
    targets["joint_xy_trunc"] = targets["joint_trunc"]
    targets["confidence"] = np.ones(2)
    there = [record["hand_type"] in kinds for kinds in ((0, 2), (1, 2))]
    there = there[::-1] if flip else there
    for hand in range(2):
        places = [
            xy
            for xy, valid in zip(
                targets["joint_img"][hand, :, :2], targets["joint_valid"][hand], strict=True
            )
            if valid
        ]
        if places and not any(0 <= x < grid and 0 <= y < grid for x, y in places):
            there[hand] = False
    targets["hand_present"] = np.array(there)
    targets["hand_present_valid"] = np.array(bool(record["hand_type_valid"]))
    targets["cells_to_rays"] = rays_by_cells(cells, turn)
    return targets


def rays_by_cells(cells: Callable[[np.ndarray], np.ndarray], turn: np.ndarray) -> np.ndarray:
    """The affine (2, 3) from cells to rays, by four points at a depth of 1 and least squares."""
    points = np.array([[0.0, 0, 1], [0.3, 0, 1], [0, 0.3, 1], [-0.2, 0.1, 1]])
    known = np.column_stack([cells(points)[:, :2], np.ones(4)])
    return np.linalg.lstsq(known, (points @ turn.T)[:, :2], rcond=None)[0].T


def depth_of(found: Arrays, cells_to_rays: np.ndarray, known: np.ndarray) -> float:
    """The right wrist's depth: least squares in x and y of each hand and one depth.

    Of every joint of the hands that are known, X + x₀ = u (Z + z₀) and the same of y.
    """
    rows, right_sides = [], []
    for hand in np.flatnonzero(known):
        deeper = found["rel_trans"][2] if hand else 0.0
        for joint, cell in zip(found["joints"][hand], found["joint_img"][hand], strict=True):
            ray = cells_to_rays @ [cell[0], cell[1], 1]
            for axis in range(2):
                row = np.zeros(5)
                row[2 * hand + axis], row[4] = 1, -ray[axis]
                rows.append(row)
                right_sides.append(ray[axis] * (joint[2] + deeper) - joint[axis])
    return float(np.linalg.lstsq(np.array(rows), np.array(right_sides), rcond=None)[0][4])


# Losses


def loss_terms(
    predictions: Sequence[Arrays], targets: Sequence[Arrays], weights: Mapping[str, float]
) -> dict[str, float]:
    """Every term times its weight, of a batch of samples.

    Predictions have `rel_trans` (3), `joint_img` (2,21,3), `pose` (2,48), `betas` (2,10), `joints`
    (2,21,3), `joint_proj` (2,21,2) and `presence_logit` (2).
    """
    total = dict.fromkeys(LOSS_WEIGHTS, 0.0)
    elements = dict.fromkeys(LOSS_WEIGHTS, 0)

    def add(term: str, predicted: np.ndarray, truth: np.ndarray, counts: bool) -> None:
        for a, b in zip(predicted.tolist(), truth.tolist(), strict=True):
            total[term] += abs(a - b) if counts else 0.0
            elements[term] += 1

    for found, truth in zip(predictions, targets, strict=True):
        add("rel_trans", found["rel_trans"], truth["rel_trans"], truth["rel_trans_valid"])
        placed = truth["joint_valid"][:, 0]
        z = depth_of(found, truth["cells_to_rays"], placed) if placed.any() else math.nan
        for hand in range(2):
            depth = np.array([max(max(z, 0.05) + hand * found["rel_trans"][2], 0.05)])
            true_depth = truth["wrist_cam"][hand, 2:]
            counts = placed[hand] and true_depth[0] > 0.05
            off = abs(math.log(depth[0]) - math.log(max(true_depth[0], 0.05)))
            add("depth", np.array([min(off, 0.5)]), np.zeros(1), counts)
            chance = 1 / (1 + math.exp(-found["presence_logit"][hand]))
            surprise = -math.log(chance if truth["hand_present"][hand] else 1 - chance)
            add("presence", np.array([surprise]), np.zeros(1), truth["hand_present_valid"])
            fit, posed = truth["mano_hand_valid"][hand], truth["mano_pose_valid"][hand]
            add("mano_pose", found["pose"][hand], truth["mano_pose"][hand], posed)
            add("mano_shape", found["betas"][hand], truth["mano_shape"][hand], posed)
            for joint in range(21):
                at = hand, joint
                known, seen = truth["joint_valid"][at], truth["joint_trunc"][at]
                fit_seen = truth["mano_joint_trunc"][at]
                add("joint_cam", found["joints"][at], truth["joint_cam"][at], known)
                add("mano_joint_cam", found["joints"][at], truth["mano_joint_cam"][at], fit)
                add("joint_img", found["joint_img"][at], truth["joint_img"][at], seen)
                add("mano_joint_img", found["joint_img"][at], truth["mano_joint_img"][at], fit_seen)
                add("joint_proj", found["joint_proj"][at], truth["joint_img"][at][:2], known)
    return {term: weights[term] * total[term] / elements[term] for term in total}


# Metrics


def kabsch(source: np.ndarray, target: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The source moved onto the target by the best similarity of the used points (by SVD)."""
    a, b = source[used], target[used]
    covariance = (a - a.mean(0)).T @ (b - b.mean(0))
    u, singular, vt = np.linalg.svd(covariance)
    signs = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = vt.T @ np.diag(signs) @ u.T
    scale = (singular * signs).sum() / ((a - a.mean(0)) ** 2).sum()
    return scale * (source - a.mean(0)) @ rotation.T + b.mean(0)


def f_score(points: np.ndarray, truth: np.ndarray, threshold: float) -> float:
    """Harmonic mean of precision and recall of nearest distances."""
    there = np.array([np.sqrt(((truth - p) ** 2).sum(1).min()) for p in points])
    back = np.array([np.sqrt(((points - p) ** 2).sum(1).min()) for p in truth])
    precision, recall = (there <= threshold).mean(), (back <= threshold).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def two_hands(vertices: np.ndarray, joints: np.ndarray, rel_trans: np.ndarray) -> np.ndarray:
    """Both meshes in one place: the right wrist at the origin, the left one at `rel_trans`."""
    return np.concatenate([vertices[0] - joints[0, 0], vertices[1] - joints[1, 0] + rel_trans])


def average_precision(score: np.ndarray, truth: np.ndarray) -> float:
    """Mean over those that are there of the precision among all scored no lower than they."""
    precisions = [truth[score >= one].mean() for one in score[truth]]
    return float(np.mean(precisions))


def area_under_roc(score: np.ndarray, truth: np.ndarray) -> float:
    """Share of the pairs (there, not there) in their order, ties half."""
    pairs = [(a > b) + (a == b) / 2 for a in score[truth] for b in score[~truth]]
    return float(np.mean(pairs))


def acceleration_error(predicted: np.ndarray, true: np.ndarray, used: np.ndarray) -> float:
    """Of three instants in a row, (3, 2, 21, 3) metres relative to the wrists; mm per frame²."""
    errors = []
    for hand, joint in np.argwhere(used):
        bends = [
            x[2, hand, joint] - 2 * x[1, hand, joint] + x[0, hand, joint] for x in (predicted, true)
        ]
        errors.append(1000 * np.sqrt(((bends[0] - bends[1]) ** 2).sum()))
    return float(np.mean(errors))


def evaluation(
    reconstructions: Sequence[Arrays],
    targets: Sequence[Arrays],
    hand_types: Sequence[str],
    *,
    fewest_joints_to_align: int = 7,
) -> dict[str, tuple[float | None, int]]:
    """Path → (value, count of samples) of every error of the protocols, and the F-scores.

    Reconstructions have `vertices` (2,778,3), `joints` (2,21,3), `rel_trans` (3) and `wrists`
    (2,3), metres, and `presence` (2).
    """
    lists = ("single", "interacting")
    joint_errors = {  # [protocol][list][42 joints] of errors
        protocol: {name: [[] for _ in range(42)] for name in lists}
        for protocol in ("wrist_aligned", "scale_aligned", "procrustes", "camera_space")
    }
    values: dict[str, dict[str, list[float]]] = {}
    samples: dict[tuple[str, str], set[int]] = {}
    scored: dict[str, list[tuple[float, bool]]] = {name: [] for name in lists}

    def note(metric: str, name: str, sample: int, value: float | None = None) -> None:
        if value is not None:
            values.setdefault(metric, {n: [] for n in lists})[name].append(float(value))
        samples.setdefault((metric, name), set()).add(sample)

    for i, (found, truth, kind) in enumerate(
        zip(reconstructions, targets, hand_types, strict=True)
    ):
        name = "interacting" if kind == "interacting" else "single"
        own = (0, 1) if kind == "interacting" else (("right", "left").index(kind),)
        fits = [hand for hand in own if truth["mano_hand_valid"][hand]]
        if truth["hand_present_valid"]:
            said, there = found["presence"], truth["hand_present"]
            decisions = [(said[hand] > 0.5) == there[hand] for hand in range(2)]
            note("handedness/accuracy", name, i, all(decisions))
            scored[name] += zip(said.tolist(), there.tolist(), strict=True)
            if there.sum() == 1:
                note("handedness/side_accuracy", name, i, said[there][0] > said[~there][0])
        scale_aligned_vertices = []
        for hand in range(2):
            mesh, joints = found["vertices"][hand] * 1000, found["joints"][hand] * 1000
            true_mesh = truth["mano_mesh_cam"][hand] * 1000
            true_joints, annotated = (
                truth[n][hand] * 1000 for n in ("mano_joint_cam", "joint_cam")
            )
            seen = truth["joint_trunc"][hand]

            def note_joints(
                protocol: str,
                distances: np.ndarray,
                seen: np.ndarray = seen,
                hand: int = hand,
                name: str = name,
                sample: int = i,
            ) -> None:
                for joint in np.flatnonzero(seen):
                    joint_errors[protocol][name][21 * hand + joint].append(float(distances[joint]))
                    note(f"{protocol}/joints", name, sample)

            relative = (joints - joints[0]) - (annotated - annotated[0])
            note_joints("wrist_aligned", np.sqrt((relative**2).sum(1)))
            if truth["hand_present"][hand] and truth["joint_valid"][hand, 0]:
                place, true_place = found["wrists"][hand] * 1000, truth["wrist_cam"][hand] * 1000
                off = (joints - joints[0] + place) - (annotated - annotated[0] + true_place)
                note_joints("camera_space", np.sqrt((off**2).sum(1)))
                note("camera_space/MRPE", name, i, np.sqrt(((place - true_place) ** 2).sum()))
                deeper = abs(place[2] - true_place[2])
                note("camera_space/depth", name, i, deeper / true_place[2])
            if seen.sum() >= fewest_joints_to_align:
                moved = kabsch(joints, annotated, seen)
                note_joints("procrustes", np.sqrt(((moved - annotated) ** 2).sum(1)))
            if hand not in fits:
                continue
            apart = (mesh - joints[0]) - (true_mesh - true_joints[0])
            note("wrist_aligned/MPVPE", name, i, np.sqrt((apart**2).sum(1)).mean())
            aligned = kabsch(mesh, true_mesh, np.ones(778, bool))
            distances = np.sqrt(((aligned - true_mesh) ** 2).sum(1))
            note("procrustes/PA-MPVPE", name, i, distances.mean())
            for threshold in (5, 15):
                note(f"procrustes/F@{threshold}", name, i, f_score(aligned, true_mesh, threshold))
            if len(fits) == len(own):
                ours, theirs = joints.copy(), true_joints.copy()
                middle = JOINTS.index("Middle_4")
                ours[middle], theirs[middle] = mesh[444], true_mesh[444]
                origin, true_origin = ours[9].copy(), theirs[9].copy()
                palm, true_palm = ours[0] - ours[9], theirs[0] - theirs[9]
                factor = np.sqrt((true_palm @ true_palm) / (palm @ palm))
                ours, theirs = (ours - origin) * factor, theirs - true_origin
                note_joints("scale_aligned", np.sqrt(((ours - theirs) ** 2).sum(1)))
                apart = (mesh - origin) * factor - (true_mesh - true_origin)
                scale_aligned_vertices.append(np.sqrt((apart**2).sum(1)).mean())
        if scale_aligned_vertices:
            note("scale_aligned/MPVPE", name, i, np.mean(scale_aligned_vertices))
        if name == "interacting" and truth["rel_trans_valid"]:
            off = (found["rel_trans"] - truth["rel_trans"]) * 1000
            note("wrist_aligned/MRRPE", name, i, np.sqrt(off @ off))
            if len(fits) == 2:
                ours = two_hands(found["vertices"], found["joints"], found["rel_trans"])
                theirs = two_hands(
                    truth["mano_mesh_cam"], truth["mano_joint_cam"], truth["rel_trans"]
                )
                distances = np.sqrt(((ours - theirs) ** 2).sum(1)) * 1000
                assert len(distances) == 1556
                note("wrist_aligned/RRVE", name, i, distances.mean())

    result: dict[str, tuple[float | None, int]] = {}
    for protocol, by_list in joint_errors.items():
        prefix = {"procrustes": "PA-", "camera_space": "CS-"}.get(protocol, "")
        title = f"{protocol}/{prefix}MPJPE"
        means = {n: [np.mean(errors) for errors in by_list[n] if errors] for n in lists}
        for subset, chosen in (*((n, (n,)) for n in lists), ("all", lists)):
            joined = [value for n in chosen for value in means[n]]
            count = sum(len(samples.get((f"{protocol}/joints", n), ())) for n in chosen)
            result[f"{title}/{subset}"] = float(np.mean(joined)) if joined else None, count
    for metric, by_list in values.items():
        for subset, chosen in (*((n, (n,)) for n in lists), ("all", lists)):
            joined = [value for n in chosen for value in by_list[n]]
            count = sum(len(samples.get((metric, n), ())) for n in chosen)
            result[f"{metric}/{subset}"] = float(np.mean(joined)) if joined else None, count
    for subset, chosen in (*((n, (n,)) for n in lists), ("all", lists)):
        score, there = np.array([pair for n in chosen for pair in scored[n]]).T
        there = there.astype(bool)
        one_kind = there.all() or not there.any()
        for metric, measure in (("AP", average_precision), ("AUC", area_under_roc)):
            number = (None, 0) if one_kind else (measure(score, there), len(there) // 2)
            result[f"handedness/{metric}/{subset}"] = number
    return result
