"""Hands live: the freshest frame first, filtered, shown in a browser and recorded."""

import dataclasses
import http.server
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from er_jax.detection import DetectedHand
from er_jax.mano import HANDS
from er_jax.photographs.engine import Engine
from er_jax.photographs.photograph import Photograph, PhotographCamera, camera_of
from er_jax.photographs.result import Hand
from er_jax.rendering.overlays import HAND_COLOURS
from er_jax.rendering.rasterizer import Mesh
from er_jax.utils.errors import ConfigError
from er_jax.video.drawing import painted
from er_jax.video.frames import Frame, Pixels
from er_jax.video.smoothing import LiveFilter
from er_jax.video.track import Clip, HandTrack
from er_jax.video.tracking import Tracker


class Webcam:
    """The freshest frame of a camera: those that nobody had time for are dropped.

    Args:
      device: the camera's number, or an address that OpenCV reads.
      size_px: width and height to ask the camera for; None: its own.
      open_capture: opens it; `cv2.VideoCapture`.

    Raises:
      ConfigError: there is no such camera, or it gives no frame.
    """

    def __init__(
        self,
        device: int | str = 0,
        size_px: tuple[int, int] | None = None,
        open_capture: Callable[[Any], Any] = cv2.VideoCapture,
    ):
        self._capture = open_capture(device)
        if not self._capture.isOpened():
            raise ConfigError(
                f"camera {device} cannot be opened: another program may hold it, or it has another "
                "number (--device=1)"
            )
        if size_px is not None:
            self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, size_px[0])
            self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size_px[1])
        self._changed = threading.Condition()
        self._newest: tuple[int, float, Pixels] | None = None
        self._ended = False
        self.dropped = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[Frame, float]]:
        """Frames, and when each was taken by `time.monotonic`; ends where the camera does."""
        first, last = None, -1
        while True:
            with self._changed:
                while not self._ended and (self._newest is None or self._newest[0] == last):
                    self._changed.wait()
                if self._newest is None or self._newest[0] == last:
                    return
                number, taken, pixels = self._newest
            self.dropped += number - last - 1
            last = number
            first = taken if first is None else first
            yield Frame(number, taken - first, pixels), taken

    def __enter__(self) -> "Webcam":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(timeout=5)
        self._capture.release()

    def _read(self) -> None:
        number = 0
        while not self._ended:
            there, image = self._capture.read()
            with self._changed:
                if not there:
                    self._ended = True
                else:
                    self._newest = number, time.monotonic(), np.ascontiguousarray(image[..., ::-1])
                    number += 1
                self._changed.notify_all()


@dataclasses.dataclass(frozen=True)
class LiveHand:
    """A hand of a frame, as fitted, and its pose after the filter."""

    person: int
    detected: DetectedHand
    fitted: Hand
    betas: np.ndarray
    rotations: np.ndarray
    transl: np.ndarray


class LiveHands:
    """The hands of each next frame.

    Args:
      engine: that fits them.
      tracker: that follows them.
      filtered: False: as they were fitted.
      focal_px: of the camera; None: assumed.
      principal_point_px: x, y; None: the middle.
    """

    def __init__(
        self,
        engine: Engine,
        tracker: Tracker,
        *,
        filtered: bool = True,
        focal_px: float | tuple[float, float] | None = None,
        principal_point_px: tuple[float, float] | None = None,
    ):
        self._engine, self._tracker, self._filtered = engine, tracker, filtered
        self._focal_px, self._principal_point_px = focal_px, principal_point_px
        self._filters: dict[tuple[int, str], LiveFilter] = {}
        self.camera: PhotographCamera | None = None
        self.size_px = (0, 0)
        self.times_s: list[float] = []
        self._seen: list[tuple[int, LiveHand]] = []

    def __call__(self, frame: Frame) -> list[LiveHand]:
        """The hands of a frame; its time must be after that of the one before."""
        photograph = Photograph(frame.pixels, stored_size_px=frame.pixels.shape[1::-1])
        self.camera = camera_of(photograph, self._focal_px, self._principal_point_px)
        self.size_px = photograph.size_px
        persons: dict[int, list[DetectedHand]] = {}
        for hand in self._tracker(frame.pixels):
            persons.setdefault(hand.person, []).append(hand.detected)
        results = self._engine.many(
            [photograph] * len(persons),
            detections=list(persons.values()),
            focal_px=self.camera.focal_px,
            principal_point_px=self.camera.principal_point_px,
        )
        found = []
        for (person, detected), result in zip(persons.items(), results, strict=True):
            by_side: dict[str, DetectedHand] = {hand.side: hand for hand in detected}
            for fitted in result.hands:
                pose = self._pose(person, frame.time_s, fitted)
                found.append(LiveHand(person, by_side[fitted.side], fitted, *pose))
        self._seen += [(len(self.times_s), hand) for hand in found]
        self.times_s.append(frame.time_s)
        return found

    def draw(self, pixels: Pixels, hands: list[LiveHand]) -> Pixels:
        """The frame with the hands painted over it."""
        if self.camera is None:
            return pixels
        model = self._engine.hand_model
        faces = np.asarray(model.faces)
        meshes = []
        for hand in hands:
            side = HANDS.index(hand.fitted.side)
            vertices = self._track([hand], [0]).meshes(model)[0][0]
            meshes.append(Mesh(vertices, faces[side], HAND_COLOURS[side]))
        return painted(pixels, meshes, self.camera.projection)

    def clip(self, name: str) -> Clip:
        """All that was seen so far; its frames are those that there was time for."""
        if self.camera is None:
            raise ConfigError("the camera gave no frame")
        rows: dict[tuple[int, str], list[tuple[int, LiveHand]]] = {}
        for frame, hand in self._seen:
            rows.setdefault((hand.person, hand.fitted.side), []).append((frame, hand))
        tracks = [
            self._track([hand for _, hand in own], [frame for frame, _ in own])
            for _, own in sorted(rows.items(), key=lambda row: (row[0][0], row[0][1] == "left"))
        ]
        return Clip(
            name=name,
            size_px=self.size_px,
            times_s=np.array(self.times_s),
            camera=self.camera,
            tracks=tuple(tracks),
            hand_model=self._engine.hand_model.source,
        )

    def _pose(
        self, person: int, time_s: float, hand: Hand
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if not self._filtered:
            return hand.betas, hand.rotations, hand.transl
        key = person, hand.side
        if key not in self._filters:
            self._filters[key] = LiveFilter(self._engine.hand_model, hand.side)
        return self._filters[key](time_s, hand.betas, hand.rotations, hand.transl)

    def _track(self, hands: list[LiveHand], frames: list[int]) -> HandTrack:
        return HandTrack(
            person=hands[0].person,
            side=hands[0].fitted.side,
            frames=np.array(frames),
            filled=np.zeros(len(hands), bool),
            score=np.array([hand.detected.score for hand in hands]),
            betas=np.array([hand.betas for hand in hands]),
            rotations=np.array([hand.rotations for hand in hands]),
            transl=np.array([hand.transl for hand in hands]),
            keypoints_px=np.array([hand.detected.keypoints_px for hand in hands]),
            confidence=np.array([hand.detected.confidence for hand in hands]),
            joint_sigma_m=np.array([hand.fitted.joint_sigma_m for hand in hands]),
            depth_sigma_m=np.array([hand.fitted.depth_sigma_m for hand in hands]),
        )


class Latency:
    """How old frames were when their hands were shown, and how many there were a second."""

    def __init__(self, over: int = 30):
        self._ages: deque[float] = deque(maxlen=over)
        self._shown: deque[float] = deque(maxlen=over)

    def shown(self, taken: float) -> None:
        now = time.monotonic()
        self._ages.append(now - taken)
        self._shown.append(now)

    def __str__(self) -> str:
        if len(self._shown) < 2:
            return "…"
        rate = (len(self._shown) - 1) / max(self._shown[-1] - self._shown[0], 1e-9)
        return f"{rate:.0f} frames/s, {1000 * float(np.median(self._ages)):.0f} ms after the camera"


class Viewer:
    """A page on this machine that shows the newest picture (motion JPEG); nobody else sees it.

    Args:
      port: 0: any that is free.
    """

    def __init__(self, port: int = 0):
        viewer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                viewer._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Keeps quiet."""

        self._changed = threading.Condition()
        self._picture: bytes | None = None
        self._number = 0
        self._closed = False
        try:
            self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConfigError(f"port {port} is taken ({error.strerror}): give --port") from None
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/"

    def show(self, pixels: Pixels) -> None:
        """Shows an RGB picture to whoever looks."""
        data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        with self._changed:
            self._picture, self._number = data, self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        if request.path == "/":
            page = b"<!doctype html><title>er_jax</title><img src=/live alt='the hands, live'>"
            request.send_response(200)
            request.send_header("Content-Type", "text/html")
            request.end_headers()
            request.wfile.write(page)
            return
        if request.path != "/live":
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        last = 0
        try:
            while True:
                with self._changed:
                    while not self._closed and self._number == last:
                        self._changed.wait()
                    if self._closed or self._picture is None:
                        return
                    data, last = self._picture, self._number
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                request.wfile.write(head.encode() + data + b"\r\n")
        except OSError:  # who looked has gone
            return
