"""The live viewer: the scene beside a panel with timeline, check boxes, scores and views."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from er_jax.viewer.confidence import frame_table
from er_jax.viewer.geometry import NEAR_M, UP, View
from er_jax.viewer.legend import legend
from er_jax.viewer.pictures import Pictures
from er_jax.viewer.result import Result
from er_jax.viewer.scene import FOLDERS, Scene

SPEEDS = ("0.1×", "0.25×", "0.5×", "1×", "2×")
VIEW_BUTTONS = {"camera": "Camera", "hands": "Hands", "side": "Side"}
_SHOWN = {"meshes": "Meshes", "joints": "Joints", "scores": "Scores", "camera": "Camera, picture"}
USUAL_ASPECT = 1.5
_TICK_S = 1 / 20  # as many frames a second are shown of a clip that plays


class LiveViewer:
    """A result on a viser server, until it is closed.

    Args:
      server: a running `viser.ViserServer`.
      result: to show; its clip has the times of the pictures.
      pictures: of the same frames; None: the camera's frustum is empty.
    """

    def __init__(self, server: Any, result: Result, pictures: Pictures | None):
        self._server, self._result = server, result
        self._scene = Scene(server, result, pictures)
        self._looks: dict[int, str] = {}  # the last view of each client
        start_at(server, self._scene.views["camera"])
        server.gui.configure_theme(show_logo=False, show_share_button=False)
        server.gui.set_panel_label(result.clip.name)
        server.gui.main_panel.dock_right()
        self._timeline = self._add_timeline() if len(result.clip.times_s) > 1 else None
        self._add_views()
        self._add_check_boxes()
        self._table = self._add_confidence()
        first = min(int(hand.track.frames[0]) for hand in result.hands)
        self.show(first)
        if self._timeline is not None:
            self._timeline.seek(first)
        server.on_client_connect(self._welcome)

    def show(self, frame: int) -> None:
        """Shows a frame, and what is known of its hands."""
        self._scene.show(frame)
        self._table.content = self._told(frame)

    def play(self, seconds: float | None = None) -> None:
        """Moves the timeline on while it plays; returns after some seconds, or never."""
        ends = time.monotonic() + seconds if seconds is not None else float("inf")
        before = time.monotonic()
        while before < ends:
            time.sleep(_TICK_S)
            now = time.monotonic()
            if self._timeline is not None:
                self._timeline.advance(now - before)
            before = now

    def _add_timeline(self) -> "Timeline":
        return Timeline(self._server.gui, self._result.clip.times_s, self.show)

    def _add_views(self) -> None:
        buttons = self._server.gui.add_button_group("View", list(VIEW_BUTTONS.values()))
        names = {label: name for name, label in VIEW_BUTTONS.items()}

        @buttons.on_click
        def _(event: Any) -> None:
            if event.client is not None:
                self._looks[event.client.client_id] = view = names[event.target.value]
                look_from(event.client, self._scene.views[view])

    def _add_check_boxes(self) -> None:
        for folder in FOLDERS:
            box = self._server.gui.add_checkbox(_SHOWN[folder], True)
            box.on_update(
                lambda event, folder=folder: self._scene.set_shown(folder, event.target.value)
            )

    def _add_confidence(self) -> Any:
        gui = self._server.gui
        table = gui.add_markdown("")
        gui.add_html(f'<div style="padding:0 0.75em 0.5em;font-size:0.85em">{legend()}</div>')
        if self._result.clip.messages:
            with gui.add_folder("What to know"):
                gui.add_markdown("\n".join(f"- {text}" for text in self._result.clip.messages))
        return table

    def _told(self, frame: int) -> str:
        """What the panel says of a frame, as Markdown."""
        times = self._result.clip.times_s
        table = markdown_table(frame_table(self._result.hands, frame))
        if len(times) == 1:
            return table
        return f"frame {frame} of 0 to {len(times) - 1}, {times[frame]:.2f} s\n\n{table}"

    def _welcome(self, client: Any) -> None:
        """Shows the camera's view to who comes, and has views fit the window as it changes."""
        look_from(client, self._scene.views["camera"])
        fitted = [client.camera.aspect]

        @client.camera.on_update
        def _(camera: Any) -> None:
            if abs(camera.aspect / fitted[0] - 1) > 0.01:
                fitted[0] = camera.aspect
                view = self._scene.views[self._looks.get(client.client_id, "camera")]
                camera.fov = view.fov(camera.aspect)


class Timeline:
    """A slider over the frames, a button that plays them in a loop, and how fast.

    Args:
      gui: of the server.
      times_s: of all frames.
      show: called with the number of a frame that is to be shown.
    """

    def __init__(self, gui: Any, times_s: Float[np.ndarray, "F"], show: Callable[[int], None]):
        self._times_s, self._show = times_s, show
        self._time_s = 0.0
        self._shown = 0
        self._playing = False
        self._slider = gui.add_slider("Frame", 0, len(times_s) - 1, 1, 0)
        self._button = gui.add_button("Play")
        self._speed = gui.add_dropdown("Speed", list(SPEEDS), initial_value="1×")
        self._slider.on_update(self._moved)
        self._button.on_click(self._pressed)

    def seek(self, frame: int) -> None:
        """Puts the slider at a frame, which is shown already."""
        self._time_s = float(self._times_s[frame])
        self._slider.value = self._shown = frame

    def advance(self, seconds: float) -> None:
        """Goes on by this time, where it plays, and shows the slider's frame."""
        if self._playing:
            times = self._times_s
            ends = times[-1] + (times[-1] - times[0]) / (len(times) - 1)
            self._time_s += seconds * float(self._speed.value.removesuffix("×"))
            if self._time_s >= ends:
                self._time_s = 0.0
            frame = max(int(np.searchsorted(times, self._time_s, side="right")) - 1, 0)
            if frame != self._slider.value:
                self._slider.value = frame
        if self._slider.value != self._shown:
            self._shown = self._slider.value
            self._show(self._shown)

    def _moved(self, event: Any) -> None:
        if event.client is not None:  # by hand, not by `advance`
            self._time_s = float(self._times_s[self._slider.value])

    def _pressed(self, _: Any) -> None:
        self._playing = not self._playing
        self._button.label = "Pause" if self._playing else "Play"


def look_from(client: Any, view: View) -> None:
    """Has a client look from there, all that the view is of in its window."""
    camera = client.camera
    with client.atomic():
        camera.position = view.position_m
        camera.look_at = view.look_at_m
        camera.up_direction = UP
        camera.fov = view.fov(camera.aspect)
        camera.near = NEAR_M


def start_at(server: Any, view: View) -> None:
    """Has whoever comes to a server look from there, in a window of a usual shape."""
    camera = server.initial_camera
    camera.position = view.position_m
    camera.look_at = view.look_at_m
    camera.up = UP
    camera.fov = view.fov(USUAL_ASPECT)
    camera.near = NEAR_M


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table in Markdown, the first of them its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| --- " * len(rows[0]) + "|", *lines[1:]])
