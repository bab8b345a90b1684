"""HIC from its raw tree to records, with PLY files written here and with the fixture's."""

import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tree import tiny_tree

from data_pipeline import show
from data_pipeline.build import __main__ as build
from data_pipeline.datasets import RecordSource, find_dataset
from data_pipeline.loader import make_eval_loader, make_train_loader
from data_pipeline.readers.hic import read_mesh, read_split
from data_pipeline.records import BOX_SOURCES
from er_jax.mano import HAND21, MANO16, TIP_VERTICES, joints_from_vertices, load_hands
from er_jax.supervision.losses import losses
from er_jax.supervision.targets import make_targets
from er_jax.utils.errors import DataError

SHARED = Path(__file__).parents[2] / "shared"
WIDTH, HEIGHT = 64, 48

needs_fixtures = pytest.mark.skipif(
    not (SHARED / "fixtures").exists(), reason="the shared fixtures are not beside the repository"
)


def hand_cloud(seed: int) -> np.ndarray:
    """778 points where the camera's centre sees them."""
    return np.random.default_rng(seed).uniform([-0.05, -0.05, 0.65], [0.05, 0.05, 0.75], (778, 3))


def write_ply(path: Path, vertices: np.ndarray, text: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = (
        f"ply\nformat {'ascii' if text else 'binary_little_endian'} 1.0\ncomment a fit\n"
        f"element vertex {len(vertices)}\nproperty float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    if text:
        lines = [" ".join(f"{value:.9g}" for value in vertex) for vertex in vertices]
        path.write_text(header + "\n".join(lines) + "\n3 0 1 2\n")
    else:
        face = b"\x03" + np.arange(3, dtype="<i4").tobytes()
        path.write_bytes(header.encode() + vertices.astype("<f4").tobytes() + face)


def write_tree(raw_dir: Path) -> dict:
    """Sequence 02: both hands. 15: the left hand, as JPEG. 16: no fit."""
    content: dict[str, list] = {"images": [], "annotations": []}
    fits = [("02", "png", "interacting", (1, 2)), ("15", "jpg", "left", (None, 3))]
    fits.append(("16", "png", "right", (None, None)))
    for i, (sequence, suffix, hand_type, seeds) in enumerate(fits):
        file_name = f"{sequence}/rgb/{i:05d}.{suffix}"
        (raw_dir / file_name).parent.mkdir(parents=True)
        noise = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(raw_dir / file_name), noise)
        paths = []
        for side, seed in zip(("right", "left"), seeds, strict=True):
            paths.append(None if seed is None else f"MANO/{sequence}/{i:05d}_{side}.ply")
            if seed is not None:
                write_ply(raw_dir / str(paths[-1]), hand_cloud(seed), text=seed % 2 == 0)
        content["images"].append(
            {"id": 7 + i, "file_name": file_name, "width": WIDTH, "height": HEIGHT}
            | {"seq_name": sequence, "frame_idx": i}
        )
        content["annotations"].append(
            {"id": i, "image_id": 7 + i, "hand_type": hand_type}
            | {"right_mano_path": paths[0], "left_mano_path": paths[1]}
        )
    (raw_dir / "HIC.json").write_text(json.dumps(content))
    return content


@pytest.fixture
def hic_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("data_pipeline.readers.hic.PRINCPT_PX", (WIDTH / 2, HEIGHT / 2))
    monkeypatch.setattr("data_pipeline.readers.hic.FOCAL_PX", (300.0, 300.0))
    write_tree(tmp_path / "raw")
    return tmp_path / "raw"


def run(raw_dir: Path, data_dir: Path, *options: str) -> None:
    arguments = [f"--raw_dir={raw_dir}", f"--data_dir={data_dir}", "--workers=1"]
    assert build.main(["hic", *arguments, *options]) == 0


@pytest.mark.parametrize("text", [True, False])
def test_vertices_of_a_ply_come_in_its_order(tmp_path, text):
    vertices = hand_cloud(0)
    vertices[5] = vertices[4]  # a reader that merges equal vertices would shift the rest
    write_ply(tmp_path / "hand.ply", vertices, text)
    np.testing.assert_allclose(read_mesh(tmp_path / "hand.ply"), vertices, atol=1e-7)


def test_records(hic_raw, tmp_path):
    run(hic_raw, tmp_path)
    source = RecordSource(find_dataset(tmp_path, "hic"), "test")
    records = {record["annotation_id"]: record for record in map(source.__getitem__, range(2))}
    assert sorted(records) == [0, 1]
    both, left = records[0], records[1]
    assert both["mano_vertices_valid"].tolist() == [True, True]
    assert left["mano_vertices_valid"].tolist() == [False, True]
    np.testing.assert_allclose(both["mano_vertices_m"][1], hand_cloud(2), atol=1e-7)
    np.testing.assert_allclose(left["mano_vertices_m"][1], hand_cloud(3), atol=1e-7)
    for record, name in ((both, "02/rgb/00000.png"), (left, "15/rgb/00001.jpg")):
        assert record["image"] == (hic_raw / name).read_bytes()
        assert not record["mano_valid"].any()
        assert not record["joint_valid_world"].any()
        assert not record["joint_valid_view"].any()
        np.testing.assert_array_equal(record["camera_rotation"], np.eye(3))
        assert BOX_SOURCES[record["bbox_source"]] == "mesh"
    # The box of the projected vertices, enlarged, inside the image, square, enlarged.
    pixels = hand_cloud(3)[:, :2] / hand_cloud(3)[:, 2:] * 300 + [WIDTH / 2, HEIGHT / 2]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    low, high = low - 0.125 * (high - low), high + 0.125 * (high - low)
    low, high = np.maximum(low, 0), np.minimum(high, [WIDTH - 1, HEIGHT - 1])
    side = 1.25 * max(high - low)
    np.testing.assert_allclose(left["bbox_px"], [*((low + high) / 2 - side / 2), side, side], 1e-4)


def test_report_and_subsets(hic_raw, tmp_path):
    counts = read_split(hic_raw, subset="all").counts
    assert (counts["annotations"], counts["dropped: no fit"]) == (3, 1)
    for subset, ids in (("hand_hand", [0]), ("hand_object", [1])):
        table = read_split(hic_raw, subset=subset).table
        assert [table.record(i)["annotation_id"] for i in range(len(table))] == ids
    run(hic_raw, tmp_path, "--subset=hand_object")
    assert len(RecordSource(find_dataset(tmp_path, "hic/hand_object"), "test")) == 1


def test_batches_for_evaluation_and_training(hic_raw, tmp_path):
    run(hic_raw, tmp_path)
    interhand_raw = tiny_tree().write(tmp_path / "interhand")
    arguments = [f"--raw_dir={interhand_raw}", f"--data_dir={tmp_path}", "--workers=1"]
    assert build.main(["interhand26m", *arguments]) == 0
    batch = next(make_eval_loader(tmp_path, "hic", "test", batch_size=2, input_size=32))
    assert batch["mano_vertices_m"].shape == (2, 2, 778, 3)
    mixed = make_train_loader(
        tmp_path, {"interhand26m": 1, "hic:test": 1}, batch_size=8, seed=0, input_size=32
    )
    batch = next(mixed)
    from_hic = batch["mano_vertices_valid"].any(axis=1)
    assert from_hic.sum() == 4
    np.testing.assert_array_equal(batch["mano_vertices_m"][~from_hic], 0)
    assert not batch["joint_valid_world"][from_hic].any()


def test_its_samples_train_by_their_meshes_alone(hic_raw, tmp_path):
    """No term of pose and shape, none that is not finite, and slopes only where a hand is."""
    run(hic_raw, tmp_path)
    loader = make_train_loader(tmp_path, "hic:test", batch_size=2, seed=0, input_size=32)
    targets = jax.jit(make_targets)(load_hands(None), next(loader))
    shapes = {"rel_trans": (3,), "pose": (2, 48), "betas": (2, 10), "joints": (2, 21, 3)}
    shapes |= {"joint_img": (2, 21, 3), "joint_proj": (2, 21, 2)}
    predicted = {name: jnp.full((2, *shape), 50.0) for name, shape in shapes.items()}
    terms = losses(SimpleNamespace(**predicted, presence_logit=None), targets)
    assert all(np.isfinite(term) for term in terms.values())
    assert terms["mano_pose"] == terms["mano_shape"] == 0
    assert min(terms[name] for name in ("joint_cam", "mano_joint_cam", "joint_proj")) > 0
    slopes = jax.grad(
        lambda p: sum(losses(SimpleNamespace(**p, presence_logit=None), targets).values())
    )(predicted)
    given = np.asarray(targets.mano_hand_valid)
    assert given.sum() == 3
    np.testing.assert_array_equal(np.abs(slopes["joints"]).sum(axis=(2, 3)) > 0, given)


def test_a_image_cut_short(hic_raw, tmp_path, capsys):
    path = hic_raw / "02/rgb/00000.png"
    path.write_bytes(path.read_bytes()[:-100])
    assert build.main(["hic", f"--raw_dir={hic_raw}", f"--data_dir={tmp_path}"]) == 1
    assert "00000.png: unreadable or cut short" in capsys.readouterr().err


def test_page_draws_the_joints_of_its_meshes(hic_raw, tmp_path):
    run(hic_raw, tmp_path)
    source = RecordSource(find_dataset(tmp_path, "hic"), "test")
    (left,) = (r for r in map(source.__getitem__, range(2)) if r["annotation_id"] == 1)
    page = show.draw_page([left], load_hands(None)).astype(int)
    annotated = page[: round(512 * HEIGHT / WIDTH)]
    shown = [
        (np.abs(annotated - colour).max(axis=2) < 20).sum()
        for colour in np.array(show.HAND_COLOURS) * 255
    ]
    assert shown[1] > 50 > shown[0]


def test_errors(hic_raw):
    content = json.loads((hic_raw / "HIC.json").read_text())
    spoiled = json.loads(json.dumps(content))
    spoiled["images"][1]["seq_name"] = "first"
    (hic_raw / "HIC.json").write_text(json.dumps(spoiled))
    with pytest.raises(DataError, match="seq_name of image 8 is 'first', not a number"):
        read_split(hic_raw, subset="all")
    path = hic_raw / content["annotations"][0]["left_mano_path"]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"00000_left\.ply: no readable PLY .* Download it again"):
        read_split(hic_raw, subset="all")
    write_ply(path, hand_cloud(0)[:700], text=False)
    with pytest.raises(DataError, match=r"vertices of shape \(700, 3\).* instead of \(778, 3\)"):
        read_split(hic_raw, subset="all")
    path.unlink()
    with pytest.raises(DataError, match=r"00000_left\.ply is missing, which HIC\.json names"):
        read_split(hic_raw, subset="all")

    spoiled = json.loads(json.dumps(content))
    spoiled["annotations"][1]["image_id"] = 99
    (hic_raw / "HIC.json").write_text(json.dumps(spoiled))
    with pytest.raises(DataError, match="annotation 1 names image 99"):
        read_split(hic_raw, subset="all")
    del spoiled["images"][0]["seq_name"]
    (hic_raw / "HIC.json").write_text(json.dumps(spoiled))
    with pytest.raises(DataError, match="seq_name"):
        read_split(hic_raw, subset="all")
    (hic_raw / "HIC.json").write_text(json.dumps(content)[:100])
    with pytest.raises(DataError, match=r"HIC\.json: no valid JSON .* cut short"):
        read_split(hic_raw, subset="all")
    (hic_raw / "HIC.json").unlink()
    with pytest.raises(DataError, match=r"HIC\.json is missing\. --raw_dir must"):
        read_split(hic_raw, subset="all")


@needs_fixtures
def test_fixture_joints_are_the_regressor_s(tmp_path):
    run(SHARED / "fixtures/hic", tmp_path)
    source = RecordSource(find_dataset(tmp_path, "hic"), "test")
    assert len(source) == 8
    hands = load_hands(str(SHARED / "fixtures/mano"))
    meshes = np.stack([source[i]["mano_vertices_m"] for i in range(8)])
    joints = np.asarray(joints_from_vertices(hands, meshes))
    for i in range(8):
        for hand in np.flatnonzero(source[i]["mano_vertices_valid"]):
            regressor = np.asarray(hands.joint_regressor[hand, :778], np.float64).T
            expected = dict(zip(MANO16, regressor @ meshes[i, hand], strict=True))
            expected |= {name: meshes[i, hand, vertex] for name, vertex in TIP_VERTICES.items()}
            ordered = [expected[name] for name in HAND21]
            np.testing.assert_allclose(joints[i, hand], ordered, atol=1e-6)
