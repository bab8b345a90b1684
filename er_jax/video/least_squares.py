"""Smooth rotations and points by least squares: near what was seen, without acceleration.

A penalty of squared second differences (Whittaker 1923; of splines: Reinsch 1967), on the manifold
by Gauss-Newton steps, with weights that outliers lose (Geman and McClure 1987). Its systems are
banded, so that time grows with the number of frames.
"""

import math

import numpy as np
from jaxtyping import Float
from scipy.linalg import solveh_banded
from scipy.spatial.transform import Rotation

_ROUNDS = 12
LEAST_WEIGHT = 1e-9
"""Of what was seen, for systems that can be solved."""
_NO_WEIGHT = 1e-6  # up to this nothing is said of how large errors are
_LEAST_SCALE = 1e-4  # radians, metres: what is nearer than a few of these is no outlier

Matrices = Float[np.ndarray, "*n T 3 3"]


def smooth_rotations(
    rotations: Matrices,
    weights: Float[np.ndarray, "*n T"],
    times_s: Float[np.ndarray, "T"],
    cutoff_hz: float,
    step_s: float,
    outlier_sigmas: float = math.inf,
) -> Matrices:
    """The rotations R of least cost, by Gauss-Newton steps in their tangent spaces.

    With S the given ones and v the angular velocity log(Rₖᵀ Rₖ₊₁) / Δt between two frames, the cost
    is Σ step_s · weight · |log(Sᵀ R)|² + (2π cutoff_hz)⁻⁴ ∫ |dv/dt|² dt: uniform turning costs
    nothing. The start is the same for the matrices' entries, whose nearest rotations are taken.

    Args:
      rotations: of several joints; where the weight is zero, any.
      weights: of each; 1: `cutoff_hz` is as said.
      times_s: ascending.
      cutoff_hz: of a sine of this frequency half of the amplitude is left.
      step_s: usual time between two frames.
      outlier_sigmas: see `smooth`.
    """
    shape = rotations.shape
    given = np.asarray(rotations, np.float64).reshape(-1, *shape[-3:])
    weights = _usable(np.asarray(weights, np.float64).reshape(-1, shape[-3]))
    if shape[-3] < 2:
        return rotations
    model = _Smoothness(times_s, cutoff_hz, step_s)
    entries = given.reshape(*given.shape[:2], 9)
    start, robust = np.zeros_like(entries), np.ones_like(weights)
    for _ in range(_ROUNDS // 2):
        start = model.of_vectors(entries, weights * robust)
        distance = np.linalg.norm(start - entries, axis=-1) / math.sqrt(2)
        robust = _robust_weights(distance, weights, outlier_sigmas)
    current = nearest_rotations(start.reshape(given.shape))
    inverse = np.swapaxes(given, -1, -2)
    for _ in range(_ROUNDS):
        off = log(inverse @ current)
        robust = _robust_weights(np.linalg.norm(off, axis=-1), weights, outlier_sigmas)
        change = log(np.swapaxes(current[:, :-1], -1, -2) @ current[:, 1:])
        update = model.update(off, weights * robust, change)
        current = current @ exp(update)
        if np.abs(update).max() < 1e-10:
            break
    return nearest_rotations(current).reshape(shape)


def smooth_points(
    points: Float[np.ndarray, "T 3"],
    precision: Float[np.ndarray, "T 3 3"],
    times_s: Float[np.ndarray, "T"],
    cutoff_hz: float,
    step_s: float,
    outlier_sigmas: float = math.inf,
) -> Float[np.ndarray, "T 3"]:
    """As `smooth_rotations`, of points whose weights are matrices; zero where not seen."""
    if len(points) < 2:
        return points
    points, precision = np.asarray(points, np.float64), np.asarray(precision, np.float64)
    model = _Smoothness(times_s, cutoff_hz, step_s)
    largest = np.linalg.eigvalsh(precision)[:, -1]
    usable = _usable(largest[None])[0]
    precision = np.where(
        ((largest < usable) & (usable > 0))[:, None, None],
        usable[:, None, None] * np.eye(3),
        precision,
    )
    middle = np.average(points, axis=0, weights=usable)
    robust, result = np.ones(len(points)), points
    for _ in range(_ROUNDS):
        own = robust[:, None, None] * precision
        result = middle + model.solve(own, (own @ (points - middle)[..., None])[..., 0])
        off = result - points
        distance = np.sqrt(np.maximum(np.einsum("ti,tij,tj->t", off, precision, off), 0.0))
        distance /= np.sqrt(np.where(usable > 0, usable, 1.0))
        before, robust = robust, _robust_weights(distance[None], usable[None], outlier_sigmas)[0]
        if np.abs(robust - before).max() < 1e-10:
            break
    return result


class _Smoothness:
    """The cost of accelerations, and the banded systems that it is part of.

    The acceleration at a frame is the difference of the velocities after and before it, over the
    mean of the two times; its square counts for that time.
    """

    def __init__(self, times_s: Float[np.ndarray, "T"], cutoff_hz: float, step_s: float):
        self._steps = np.diff(np.asarray(times_s, np.float64))
        if not (self._steps > 0).all():
            raise ValueError("the frames' times do not ascend")
        cutoff = min(cutoff_hz, 100.0 / step_s)  # above, rounding would lose the gaps' fillings
        mean = (self._steps[1:] + self._steps[:-1]) / 2
        self._penalty = (2 * math.pi * cutoff) ** -4 / mean / step_s

    def of_vectors(
        self, values: Float[np.ndarray, "n T d"], weights: Float[np.ndarray, "n T"]
    ) -> Float[np.ndarray, "n T d"]:
        """The smooth ones of least cost."""
        before, after = 1 / self._steps[:-1], 1 / self._steps[1:]
        rows = np.stack([before, -before - after, after])
        bands = np.zeros((3, len(self._steps) + 1))
        for i in range(3):
            for j in range(i, 3):
                at = slice(j, j + len(before))
                bands[2 - (j - i), at] += self._penalty * rows[i] * rows[j]
        result = np.empty_like(values)
        for index, (own, weight) in enumerate(zip(values, weights, strict=True)):
            system = bands.copy()
            system[2] += weight
            result[index] = solveh_banded(system, weight[:, None] * own)
        return result

    def solve(
        self, precision: Float[np.ndarray, "T 3 3"], right: Float[np.ndarray, "T 3"]
    ) -> Float[np.ndarray, "T 3"]:
        """The smooth points x of least cost, of precision · x = right without smoothness."""
        eye = np.broadcast_to(np.eye(3), (1, len(self._steps), 3, 3))
        system = self._system(precision[None], eye, eye)
        return _solve(system[0], right)

    def update(
        self,
        off: Float[np.ndarray, "n T 3"],
        weights: Float[np.ndarray, "n T"],
        change: Float[np.ndarray, "n T-1 3"],
    ) -> Float[np.ndarray, "n T 3"]:
        """A Gauss-Newton step, to be put to the right of the rotations.

        Args:
          off: rotation vectors from what was seen to what is.
          weights: of these.
          change: rotation vectors from each frame to the next.
        """
        jacobian = _inverse_jacobian(off)
        last, first = _inverse_jacobian(change), _inverse_jacobian(-change)
        weighted = weights[..., None, None] * np.swapaxes(jacobian, -1, -2)
        right = -(weighted @ off[..., None])[..., 0]
        velocity = change / self._steps[:, None]
        force = self._penalty[:, None] * (velocity[:, 1:] - velocity[:, :-1])
        for offset, block in enumerate(self._blocks(last, first)):
            at = slice(offset, offset + force.shape[1])
            right[:, at] -= (np.swapaxes(block, -1, -2) @ force[..., None])[..., 0]
        systems = self._system(weighted @ jacobian, last, first)
        return np.stack([_solve(*own) for own in zip(systems, right, strict=True)])

    def _blocks(self, last: Matrices, first: Matrices) -> tuple[Matrices, Matrices, Matrices]:
        """Of each acceleration by the steps of the frames before, at and after it."""
        last, first = (x / self._steps[:, None, None] for x in (last, first))
        return first[:, :-1], -first[:, 1:] - last[:, :-1], last[:, 1:]

    def _system(
        self, data: Matrices, last: Matrices, first: Matrices
    ) -> Float[np.ndarray, "n 9 3T"]:
        """The matrices of the normal equations, as `solveh_banded` takes their upper bands."""
        count, frames = data.shape[:2]
        diagonals = [data.copy()]
        diagonals += [np.zeros((count, max(frames - k, 0), 3, 3)) for k in (1, 2)]
        blocks = self._blocks(last, first)
        inner = max(frames - 2, 0)
        for i, left in enumerate(blocks):
            turned = self._penalty[:, None, None] * np.swapaxes(left, -1, -2)
            for j in range(i, 3):
                diagonals[j - i][:, i : i + inner] += turned @ blocks[j]
        bands = np.zeros((count, 9, frames, 3))
        for k, own in enumerate(diagonals):
            for a in range(3):
                for b in range(3):
                    above = 3 * k + b - a
                    if above >= 0:
                        bands[:, 8 - above, k:, b] = own[:, :, a, b]
        return bands.reshape(count, 9, 3 * frames)


def _solve(bands: Float[np.ndarray, "9 3T"], right: Float[np.ndarray, "T 3"]) -> np.ndarray:
    return solveh_banded(bands, right.ravel()).reshape(right.shape)


def _usable(weights: Float[np.ndarray, "n T"]) -> Float[np.ndarray, "n T"]:
    """Weights of which at least two of each row are not zero: else there is no one solution."""
    enough = (weights >= LEAST_WEIGHT).sum(-1, keepdims=True) >= 2
    return np.where(enough, weights, np.maximum(weights, LEAST_WEIGHT))


def _robust_weights(
    distance: Float[np.ndarray, "n T"], weights: Float[np.ndarray, "n T"], sigmas: float
) -> Float[np.ndarray, "n T"]:
    """Geman and McClure's, of distances over their own median."""
    if math.isinf(sigmas):
        return np.ones_like(distance)
    seen = weights > _NO_WEIGHT
    scaled = np.where(seen, distance * np.sqrt(weights), np.nan)
    some = seen.any(-1)
    scale = np.full((len(distance), 1), _LEAST_SCALE)
    scale[some, 0] = np.maximum(1.4826 * np.nanmedian(scaled[some], axis=-1), _LEAST_SCALE)
    return np.where(seen, (1 + (scaled / (sigmas * scale)) ** 2) ** -2.0, 1.0)


def exp(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    matrices = Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix()
    return matrices.reshape(*vectors.shape, 3)


def log(matrices: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    vectors = Rotation.from_matrix(matrices.reshape(-1, 3, 3)).as_rotvec()
    return vectors.reshape(matrices.shape[:-1])


def _inverse_jacobian(vectors: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Of log(exp(u) exp(δ)) by δ at zero: I + [u]/2 + (1 − θ/2 · cot(θ/2)) [u]²/θ², θ = |u|."""
    squared = (vectors**2).sum(-1)
    small = squared < 1e-6
    half = np.sqrt(np.where(small, 1.0, squared)) / 2
    share = (1 - half / np.tan(half)) / np.where(small, 1.0, squared)
    share = np.where(small, 1 / 12 + squared / 720, share)[..., None, None]
    x, y, z = np.moveaxis(vectors, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape, 3)
    return np.eye(3) + cross / 2 + share * (cross @ cross)


def nearest_rotations(matrices: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
    left, _, right = np.linalg.svd(matrices)
    left[..., -1] *= np.linalg.det(left @ right)[..., None]
    return left @ right
