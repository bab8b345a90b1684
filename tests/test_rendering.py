"""The software renderer: areas, occlusion, cameras, holes, light."""

import numpy as np
import pytest

from er_jax.rendering.cameras import PerspectiveCamera, WeakPerspectiveCamera
from er_jax.rendering.mesh_surface import prepared_surface
from er_jax.rendering.rasterizer import (
    Light,
    Mesh,
    render_meshes,
)

CAMERA = PerspectiveCamera((300.0, 310.0), (80.0, 60.0))
BLACK = np.zeros((120, 160, 3), np.uint8)
EVEN = Light(ambient=1.0, diffuse=0.0, specular=0.0)
RED, GREEN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def moved(points, x=0.0, y=0.0, z=0.0):
    return points + np.array([x, y, z])


def triangle(depth_m: float, size_m: float = 0.1, colour=RED) -> Mesh:
    """Upright, turned towards the camera."""
    corners = np.array([[-1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 0.5, 0.0]]) * size_m
    return Mesh(moved(corners, z=depth_m), np.array([[0, 1, 2]]), colour)


def sphere(centre, radius_m: float, colour=RED, rings: int = 12) -> Mesh:
    """A ball of latitudes and longitudes, outward faces."""
    latitude = np.linspace(0, np.pi, rings + 1)[:, None]
    longitude = np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False)
    points = np.stack(
        [
            np.sin(latitude) * np.cos(longitude),
            np.sin(latitude) * np.sin(longitude),
            np.cos(latitude) * np.ones_like(longitude),
        ],
        axis=-1,
    )
    around = 2 * rings
    index = np.arange(points.shape[0] * around).reshape(-1, around)
    index[0], index[-1] = index[0, 0], index[-1, 0]
    here, below = index[:-1], index[1:]
    right, right_below = np.roll(here, -1, axis=1), np.roll(below, -1, axis=1)
    faces = np.concatenate(
        [np.stack([here, below, right_below], -1), np.stack([here, right_below, right], -1)]
    ).reshape(-1, 3)
    points = points.reshape(-1, 3)
    corners = points[faces]
    flat = np.linalg.norm(np.cross(*np.moveaxis(corners[:, 1:] - corners[:, :1], 1, 0)), axis=1)
    return Mesh(points * radius_m + centre, faces[flat > 1e-9], colour)


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("camera", [CAMERA, WeakPerspectiveCamera(300.0, (80.0, 60.0))])
def test_mask_has_the_projected_area(camera, refine):
    mesh = triangle(1.0, 0.15)
    first, second, third = camera.project(mesh.vertices)
    area = abs(np.linalg.det([second - first, third - first])) / 2
    outline = sum(
        np.linalg.norm(a - b) for a, b in ((first, second), (second, third), (third, first))
    )
    rendering = render_meshes(BLACK, [mesh], camera, light=EVEN, refine=refine)
    # What the outline crosses is painted: half a point of the doubled image outwards.
    assert 0 <= (rendering.labels == 0).sum() - area < 0.4 * outline
    assert 0 <= rendering.image[..., 0].sum() / 255 - area < 0.4 * outline
    assert not rendering.image[..., 1:].any()


@pytest.mark.parametrize("camera", [CAMERA, WeakPerspectiveCamera(300.0, (80.0, 60.0))])
@pytest.mark.parametrize("red_depth, green_depth", [(0.8, 1.0), (1.0, 0.8)])
def test_the_nearer_mesh_wins_in_any_order(camera, red_depth, green_depth):
    red, green = triangle(red_depth, colour=RED), triangle(green_depth, colour=GREEN)
    nearer = 0 if red_depth < green_depth else 1
    for order in ([0, 1], [1, 0]):
        meshes = [(red, green)[k] for k in order]
        rendering = render_meshes(BLACK, meshes, camera, light=EVEN)
        assert rendering.image[60, 75].argmax() == nearer
        assert order[rendering.labels[60, 75]] == nearer


def test_intersecting_meshes_hide_each_other_part_by_part():
    left_ahead = sphere((-0.02, 0, 1.0), 0.05, RED)
    right_ahead = sphere((0.02, 0, 1.0), 0.05, GREEN)
    labels = render_meshes(BLACK, [left_ahead, right_ahead], CAMERA, light=EVEN).labels
    assert (labels[60, 66:80] == 0).all()
    assert (labels[60, 82:95] == 1).all()


def test_weak_perspective_scales_lengths():
    mesh = triangle(1.0, 0.1)
    once = render_meshes(BLACK, [mesh], WeakPerspectiveCamera(200.0, (80.0, 60.0)))
    twice = render_meshes(BLACK, [mesh], WeakPerspectiveCamera(400.0, (80.0, 60.0)))
    larger = Mesh(mesh.vertices * 2, mesh.faces, mesh.colour)
    enlarged = render_meshes(BLACK, [larger], WeakPerspectiveCamera(200.0, (80.0, 60.0)))
    np.testing.assert_allclose((twice.labels == 0).sum() / (once.labels == 0).sum(), 4, rtol=0.04)
    np.testing.assert_array_equal(twice.image, enlarged.image)


def test_a_distant_camera_is_a_weak_perspective_one():
    mesh = sphere((0.01, -0.02, 0), 0.1)
    distance, scale = 1000.0, 250.0
    away = Mesh(moved(mesh.vertices, z=distance), mesh.faces, mesh.colour)
    far = PerspectiveCamera((scale * distance,) * 2, (80.0, 60.0))
    weak = WeakPerspectiveCamera(scale, (80.0, 60.0))
    one = render_meshes(BLACK, [away], far).image.astype(int)
    other = render_meshes(BLACK, [mesh], weak).image.astype(int)
    assert np.abs(one - other).mean() < 0.2


def test_moving_the_principal_point_moves_the_picture():
    mesh = sphere((0, 0, 1.0), 0.08)
    moved = PerspectiveCamera(CAMERA.focal_px, (CAMERA.princpt_px[0] + 7, CAMERA.princpt_px[1] - 4))
    image = render_meshes(BLACK, [mesh], CAMERA).image
    np.testing.assert_array_equal(
        np.roll(image, (-4, 7), axis=(0, 1)), render_meshes(BLACK, [mesh], moved).image
    )


def test_opacity_mixes_with_the_background():
    background = np.full_like(BLACK, 100)
    kept = background.copy()
    rendering = render_meshes(background, [triangle(1.0)], CAMERA, light=EVEN, opacity=0.4)
    np.testing.assert_array_equal(rendering.image[60, 75], [162, 60, 60])
    np.testing.assert_array_equal(rendering.image[5, 5], [100, 100, 100])
    np.testing.assert_array_equal(background, kept)


def test_an_open_end_is_shut():
    turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns), np.zeros(16)], axis=1) * 0.05
    points = np.concatenate([moved(circle, z=1.0), moved(circle, z=1.2)])
    near, far = np.arange(16), np.arange(16, 32)
    faces = np.concatenate(
        [
            np.stack([near, np.roll(near, -1), far], 1),
            np.stack([np.roll(near, -1), np.roll(far, -1), far], 1),
        ]
    )
    labels = render_meshes(BLACK, [Mesh(points, faces, RED)], CAMERA).labels
    assert labels[60, 80] == 0


def test_nothing_to_see():
    background = np.arange(BLACK.size, dtype=np.uint32).astype(np.uint8).reshape(BLACK.shape)
    behind = triangle(-1.0)
    aside = Mesh(moved(triangle(1.0).vertices, x=5), np.array([[0, 1, 2]]), RED)
    for meshes in ([], [behind], [aside]):
        rendering = render_meshes(background, meshes, CAMERA)
        np.testing.assert_array_equal(rendering.image, background)
        assert (rendering.labels == -1).all()


def test_a_background_of_another_kind_is_refused():
    for background in (BLACK[..., 0], BLACK.astype(np.float32)):
        with pytest.raises(ValueError, match="background"):
            render_meshes(background, [], CAMERA)


def test_light_falls_from_its_side():
    ball = sphere((0, 0, 1.0), 0.1, (0.8, 0.8, 0.8))
    image = render_meshes(BLACK, [ball], CAMERA, light=Light((1.0, 0.0, 0.3))).image
    assert image[60, 60].mean() > 1.5 * image[60, 100].mean()


def test_a_mesh_casts_its_shadow():
    place = np.linspace(-0.3, 0.3, 41)
    points = np.stack(np.broadcast_arrays(place, place[:, None], 1.2), axis=-1).reshape(-1, 3)
    index = np.arange(41**2).reshape(41, 41)
    one, right, below, opposite = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate(
        [np.stack([one, below, right], -1), np.stack([right, below, opposite], -1)]
    )
    wall = Mesh(points, faces.reshape(-1, 3), (0.8, 0.8, 0.8))
    ball = sphere((-0.15, 0, 1.0), 0.04)
    images = [
        render_meshes(BLACK, [wall, ball], CAMERA, light=Light((0.2, 0, 0.2), shadow=s)).image
        for s in (0.0, 1.0)
    ]
    # The light travels right and away alike: the ball's shadow lies 0.2 m to its right.
    column = round(CAMERA.project(np.array([0.05, 0, 1.2]))[0])
    assert images[1][60, column].mean() < 0.6 * images[0][60, column].mean()
    np.testing.assert_allclose(images[1][60, 125], images[0][60, 125], atol=2)


def test_refinement_rounds_a_ball():
    """Mid-points of chords lie inside a ball; those of curved edges almost on it."""
    ball = sphere((0, 0, 0), 1.0, rings=12)
    surface = prepared_surface(ball.vertices, ball.faces, ball.colour, refine=True)
    chords = ball.vertices[surface.coarse_faces[:, :2]].mean(axis=1)
    middles = surface.vertices[len(ball.vertices) :]
    assert np.abs(np.linalg.norm(middles, axis=1) - 1).max() < 0.003
    assert (1 - np.linalg.norm(chords, axis=1)).max() > 0.015
