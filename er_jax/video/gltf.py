"""Moving hands as a binary glTF 2.0 file: a mesh with a skin of 16 joints a hand, and its motion.

What of glTF is used is in Khronos' specification under Skins (the node of a skinned mesh does not
move it), Animations, Transformations (a mesh is hidden by scaling all joints of its skin to zero)
and GLB File Format. MANO moves a vertex by the pose before it skins it (`posedirs`); a skin cannot,
and how far that is off is measured and written into the file.
"""

import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from er_jax.mano import HANDS, MANO16, PARENTS, HandModel
from er_jax.rendering.overlays import HAND_COLOURS
from er_jax.utils.atomic_write import atomic_write
from er_jax.video.rigs import Rig, labelled, rig_of
from er_jax.video.track import Clip, HandTrack

UPRIGHT_XYZW = [1.0, 0.0, 0.0, 0.0]
"""Half a turn about x: from the camera's axes to glTF's, x right, y up, z towards the viewer."""
WEIGHTS = 4
"""Joints a vertex that every reader of glTF takes."""
FRAMES_MEASURED = 256  # of each hand
_COMPONENTS = {"uint8": 5121, "uint16": 5123, "float32": 5126}
_KINDS = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (16,): "MAT4"}
_VERTEX_DATA, _INDICES = 34962, 34963


class LeftOut(NamedTuple):
    """How far the skinned vertices are from the meshes, millimetres."""

    median_mm: float
    largest_mm: float


def write_gltf(clip: Clip, hands: HandModel, path: Path | str) -> LeftOut:
    """Writes all hands of a clip as one `.glb`; `docs/video.md` says what is in it.

    Args:
      clip: with hands of any number.
      hands: both hand models.
      path: of the file.

    Returns:
      What the skins leave out, of up to `FRAMES_MEASURED` frames of each hand.
    """
    gltf = _Binary()
    distances = []
    gltf.add_camera(clip)
    for label, track in labelled(clip):
        some = np.unique(np.linspace(0, len(track) - 1, FRAMES_MEASURED).round().astype(int))
        gltf.add_hand(rig_of(label, track, clip, hands), _shown(track, clip))
        distances.append(_distances_mm(track.part(some), clip, hands))
    joined = np.concatenate(distances) if distances else np.zeros(1)
    left_out = LeftOut(float(np.median(joined)), float(np.max(joined)))
    extras = {
        "name": clip.name,
        "hand_model": clip.hand_model,
        "axes": "x right, y up, z towards the viewer; the camera at the origin; metres",
        "joints": "MANO's, each turned against its parent; the mean pose included",
        "left_out": "what MANO adds to the shape by the pose (posedirs)",
        "left_out_median_mm": round(left_out.median_mm, 3),
        "left_out_largest_mm": round(left_out.largest_mm, 3),
    }
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(gltf.to_bytes(extras))
    return left_out


class _Binary:
    """A glTF document and its binary chunk, while they are made."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._document: dict[str, list[Any]] = {}
        self._roots: list[int] = []
        self._channels: list[dict[str, Any]] = []
        self._samplers: list[dict[str, Any]] = []

    def add_camera(self, clip: Clip) -> None:
        """The camera that the clip was made with; glTF has no place for its principal point."""
        width, height = clip.size_px
        focal_x, focal_y = clip.camera.focal_px
        perspective = {
            "yfov": 2 * float(np.arctan(height / (2 * focal_y))),
            "aspectRatio": float(width * focal_y / (height * focal_x)),
            "znear": 0.01,
        }
        camera = self._add("cameras", {"type": "perspective", "perspective": perspective})
        self._roots.append(self._add("nodes", {"name": "camera", "camera": camera}))

    def add_hand(self, rig: Rig, shown: Float[np.ndarray, "n 2"]) -> None:
        """A mesh, its skin and the channels that move it.

        Args:
          rig: of the hand.
          shown: times at which it comes (1) or goes (0); empty: it is always there.
        """
        first = len(self._document.get("nodes", ()))
        armature, joints = first, [first + 1 + joint for joint in range(len(MANO16))]
        quaternions = _continuous(Rotation.from_matrix(rig.rotations.reshape(-1, 3, 3)), rig)
        self._add("nodes", {"name": rig.label, "rotation": UPRIGHT_XYZW, "children": joints[:1]})
        for joint, name in enumerate(MANO16):
            parent = PARENTS[joint]
            place = rig.joints[joint] - rig.joints[parent] if joint else rig.wrist[0]
            children = [joints[child] for child in np.flatnonzero(joint == PARENTS)]
            node = {
                "name": f"{rig.label}_{name}",
                "translation": place.tolist(),
                "rotation": quaternions[0, joint].tolist(),
            }
            self._add("nodes", node | ({"children": children} if children else {}))
        inverse = np.tile(np.eye(4), (len(MANO16), 1, 1))
        inverse[:, :3, 3] = -rig.joints
        columns = inverse.swapaxes(1, 2).reshape(-1, 16)
        skin = self._add(
            "skins",
            {
                "name": rig.label,
                "joints": joints,
                "skeleton": joints[0],
                "inverseBindMatrices": self._accessor(columns, "float32"),
            },
        )
        mesh = {"name": f"{rig.label}_mesh", "mesh": self._mesh(rig), "skin": skin}
        self._roots += [armature, self._add("nodes", mesh)]

        times = self._accessor(rig.times_s, "float32", limits=True)
        self._animate(joints[0], "translation", times, rig.wrist)
        for joint, node_index in enumerate(joints):
            self._animate(node_index, "rotation", times, quaternions[:, joint])
        if len(shown):
            comes = self._accessor(shown[:, 0], "float32", limits=True)
            scales = np.repeat(shown[:, 1:], 3, axis=1)
            self._animate(armature, "scale", comes, scales, interpolation="STEP")

    def to_bytes(self, extras: dict[str, Any]) -> bytes:
        """The file."""
        document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "er_jax", "extras": extras},
            "scene": 0,
            "scenes": [{"nodes": self._roots}],
            **self._document,
        }
        if self._channels:
            motion = {"name": "motion", "channels": self._channels, "samplers": self._samplers}
            document["animations"] = [motion]
        if self._data:
            document["buffers"] = [{"byteLength": len(self._data)}]
        text = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = [(b"JSON", text)] + ([(b"BIN\0", bytes(self._data))] if self._data else [])
        body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body

    def _mesh(self, rig: Rig) -> int:
        strongest = np.argsort(-rig.weights, axis=1, kind="stable")[:, :WEIGHTS]
        weights = np.take_along_axis(rig.weights, strongest, axis=1)
        weights /= weights.sum(axis=1, keepdims=True)
        strongest[weights == 0] = 0  # as the specification wants it
        attributes = {
            "POSITION": self._accessor(rig.vertices, "float32", _VERTEX_DATA, limits=True),
            "NORMAL": self._accessor(_normals(rig), "float32", _VERTEX_DATA),
            "JOINTS_0": self._accessor(strongest, "uint8", _VERTEX_DATA),
            "WEIGHTS_0": self._accessor(weights, "float32", _VERTEX_DATA),
        }
        linear = [*(channel**2.2 for channel in HAND_COLOURS[HANDS.index(rig.side)]), 1.0]
        look = {"baseColorFactor": linear, "metallicFactor": 0.0, "roughnessFactor": 0.7}
        material = {"name": rig.label, "doubleSided": True, "pbrMetallicRoughness": look}
        primitive = {
            "attributes": attributes,
            "indices": self._accessor(rig.faces.ravel(), "uint16", _INDICES),
            "material": self._add("materials", material),
        }
        return self._add("meshes", {"name": rig.label, "primitives": [primitive]})

    def _animate(
        self,
        node: int,
        what: str,
        times: int,
        values: Float[np.ndarray, "n k"],
        interpolation: str = "LINEAR",
    ) -> None:
        output = self._accessor(values, "float32")
        sampler = {"input": times, "output": output, "interpolation": interpolation}
        target = {"node": node, "path": what}
        self._channels.append({"sampler": len(self._samplers), "target": target})
        self._samplers.append(sampler)

    def _accessor(
        self, array: np.ndarray, kind: str, target: int | None = None, *, limits: bool = False
    ) -> int:
        """Appends an array's bytes; returns the number of their accessor."""
        stored = np.ascontiguousarray(array, dtype=np.dtype(kind).newbyteorder("<"))
        view: dict[str, Any] = {
            "buffer": 0,
            "byteOffset": len(self._data),
            "byteLength": stored.nbytes,
        }
        self._data += stored.tobytes()
        self._data += bytes(-len(self._data) % 4)  # what follows begins at a multiple of four
        accessor: dict[str, Any] = {
            "bufferView": self._add("bufferViews", view | ({"target": target} if target else {})),
            "componentType": _COMPONENTS[kind],
            "count": len(stored),
            "type": _KINDS[stored.shape[1:]],
        }
        if limits:
            rows = stored.reshape(len(stored), -1)
            accessor |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        return self._add("accessors", accessor)

    def _add(self, kind: str, value: dict[str, Any]) -> int:
        """Appends to one of the document's lists; returns the place."""
        values = self._document.setdefault(kind, [])
        values.append(value)
        return len(values) - 1


def _continuous(rotations: Rotation, rig: Rig) -> Float[np.ndarray, "T 16 4"]:
    """Quaternions x, y, z, w, of whose two signs each has the one nearer to the frame before."""
    quaternions = rotations.as_quat().reshape(*rig.rotations.shape[:2], 4)
    along = (quaternions[1:] * quaternions[:-1]).sum(-1)
    signs = np.cumprod(np.where(along < 0, -1.0, 1.0), axis=0)
    quaternions[1:] *= signs[..., None]
    return quaternions


def _shown(track: HandTrack, clip: Clip) -> Float[np.ndarray, "n 2"]:
    """Times at which the hand comes (1) or goes (0); empty where it is always there."""
    known = np.isin(np.arange(len(clip.times_s)), track.frames)
    if known.all():
        return np.zeros((0, 2))
    changes = np.flatnonzero(np.diff(known, prepend=~known[:1]))
    return np.column_stack([clip.times_s[changes], known[changes]])


def _normals(rig: Rig) -> Float[np.ndarray, "778 3"]:
    """Of the vertices: the mean of their faces' by area."""
    a, b, c = (rig.vertices[corner] for corner in rig.faces.T)
    normals = np.zeros_like(rig.vertices)
    for corner in rig.faces.T:
        np.add.at(normals, corner, np.cross(b - a, c - a))
    return normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)


def _distances_mm(track: HandTrack, clip: Clip, hands: HandModel) -> Float[np.ndarray, "n"]:
    """Of the vertices as the skin puts them from those of the meshes."""
    rig = rig_of("", track, clip, hands)
    turns, places = [rig.rotations[:, 0]], [rig.wrist]
    for joint, parent in enumerate(PARENTS[1:].tolist(), start=1):
        bone = rig.joints[joint] - rig.joints[parent]
        places.append(places[parent] + turns[parent] @ bone)
        turns.append(turns[parent] @ rig.rotations[:, joint])
    skinned = np.zeros((len(track), *rig.vertices.shape))
    for joint, (turn, place) in enumerate(zip(turns, places, strict=True)):
        moved = (rig.vertices - rig.joints[joint]) @ turn.swapaxes(1, 2) + place[:, None]
        skinned += rig.weights[:, joint, None] * moved
    return 1000 * np.linalg.norm(skinned - track.meshes(hands)[0], axis=-1).ravel()
