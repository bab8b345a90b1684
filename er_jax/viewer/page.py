"""A result as one HTML file, which needs no server, no network and no installation to be seen.

The scene and its playback are viser's own page with what it shows inside. Around it are put a
legend, which viser's recordings have no place for, and a policy that keeps the page from loading
anything at all.
"""

import html
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.errors import disk_error
from er_jax.utils.progress import progress_bar
from er_jax.viewer.confidence import clip_table, frame_table
from er_jax.viewer.geometry import View
from er_jax.viewer.legend import legend
from er_jax.viewer.live import start_at
from er_jax.viewer.pictures import Pictures
from er_jax.viewer.result import Result
from er_jax.viewer.scene import Scene
from er_jax.viewer.server import running_server

FRAME_RATE = 10.0
"""Frames a second of a clip that are kept at most: the file's size goes with it."""
STEP_M = 2.0**-14
"""Vertices are rounded to it, 0.06 mm."""
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' 'wasm-unsafe-eval' data: blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; connect-src data: blob:; "
    "worker-src data: blob:"
)
"""What the browser lets the page load: what is in it, nothing else."""
_PLAYBACK_BAR_PX = 46
_VIEW_NAMES = {"camera": "camera", "hands": "hands", "side": "side"}


def write_page(
    result: Result, pictures: Pictures | None, path: Path, *, frame_rate: float = FRAME_RATE
) -> int:
    """Writes the page; it is there whole or not at all.

    Args:
      result: to show; its clip has the times of the pictures.
      pictures: of the same frames; None: the camera's frustum is empty.
      path: of the HTML file.
      frame_rate: frames a second that are kept of a clip, at most.

    Returns:
      The file's size in bytes.

    Raises:
      ConfigError: viser is not installed.
      DiskError: the file cannot be written.
    """
    frames = thinned(result.clip.times_s, frame_rate)
    with running_server() as server:
        scene = Scene(server, result, pictures, step_m=STEP_M)
        start_at(server, scene.views["camera"])
        recording = server.get_scene_serializer()
        if len(frames) > 1:
            _record(scene, recording, result.clip.times_s, frames)
        page = recording.as_html()
    text = _with_legend(page, result, scene.views, frames)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return path.stat().st_size
    except OSError as error:
        raise disk_error(path, error) from None


def thinned(times_s: Float[np.ndarray, "F"], frame_rate: float) -> Int[np.ndarray, "n"]:
    """Numbers of the frames to keep: the first at or after each multiple of the time between two.

    Args:
      times_s: of all frames, ascending.
      frame_rate: frames a second, at most.
    """
    slots = np.floor((times_s - times_s[0]) * frame_rate + 1e-3).astype(np.int64)
    return np.flatnonzero(np.diff(slots, prepend=-1) > 0)


def _record(
    scene: Scene, recording: Any, times_s: Float[np.ndarray, "F"], frames: Int[np.ndarray, "n"]
) -> None:
    """Shows one frame after the other while viser keeps what changes, each for its time."""
    shown = times_s[frames]
    lasts = np.append(np.diff(shown), np.median(np.diff(shown)))
    with progress_bar("Recording", len(frames), "frames") as bar:
        for frame, seconds in zip(frames.tolist(), lasts.tolist(), strict=True):
            scene.show(frame)
            recording.insert_sleep(seconds)
            bar.advance()


def _with_legend(
    page: str, result: Result, views: dict[str, View], frames: Int[np.ndarray, "n"]
) -> str:
    """viser's page with a title, a policy, the views and the legend."""
    bar = _PLAYBACK_BAR_PX if len(frames) > 1 else 0
    told = {
        name: {
            "position": view.position_m,
            "lookAt": view.look_at_m,
            "halfWidth": view.half_width,
            "halfHeight": view.half_height,
        }
        for name, view in views.items()
    }
    script = _SCRIPT.replace("VIEWS", json.dumps(told)).replace("BAR", str(bar))
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(result.clip.name)}</title><style>{_STYLE}</style>"
        f"<script>{script}</script>"
    )
    start = page.index("<head>") + len("<head>")
    end = page.rindex("</body>")
    last = _legend(result, len(frames)) + _licence()
    return page[:start] + head + page[start:end] + last + page[end:]


def _licence() -> str:
    """viser's licence, which goes with its client, as a comment."""
    viser = metadata.distribution("viser")
    text = viser.read_text("licenses/LICENSE") or str(viser.metadata["License"])
    return f"<!-- Made with viser {viser.version}\n{text.replace('--', '- -')} -->"


def _legend(result: Result, shown: int) -> str:
    clip = result.clip
    if shown > 1:
        rows = clip_table(result.hands, len(clip.times_s))
        what = f"{shown} of {len(clip.times_s)} frames, {clip.times_s[-1]:.1f} s. "
    else:
        rows = frame_table(result.hands, 0)
        what = ""
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    table = "".join(f"<tr>{row}</tr>" for row in cells)
    links = " · ".join(f'<a href="?view={key}">{name}</a>' for key, name in _VIEW_NAMES.items())
    messages = "".join(f"<li>{html.escape(message)}</li>" for message in clip.messages)
    return (
        f'<details id="er_jax" open><summary>{html.escape(clip.name)}</summary>'
        f"<p>View: {links}</p>{legend()}<table>{table}</table><ul>{messages}</ul>"
        f"<p>{what}Hand model: {html.escape(clip.hand_model)}.</p>"
        "</details><script>if (innerWidth < 600) er_jax.open = false</script>"
    )


_STYLE = """
#er_jax {position: fixed; top: 10px; left: 10px; z-index: 5; max-width: min(330px, 75vw);
  max-height: calc(100vh - 80px); overflow: auto; padding: 6px 12px; border-radius: 4px;
  background: rgb(255 255 255 / 88%); color: #222; font: 13px/1.45 system-ui, sans-serif;
  box-shadow: 0 0 8px rgb(0 0 0 / 18%)}
#er_jax summary {cursor: pointer; font-weight: 600; overflow-wrap: anywhere}
#er_jax p, #er_jax ul {margin: 6px 0}
#er_jax ul {padding-left: 16px; font-size: 12px}
#er_jax table {border-collapse: collapse; font-size: 12px}
#er_jax td {padding: 1px 10px 1px 0; white-space: nowrap}
#er_jax tr:first-child {color: #666}
"""
_SCRIPT = """
(() => {
  const views = VIEWS, query = new URLSearchParams(location.search);
  const view = views[query.get("view")] ?? views.camera;
  const aspect = innerWidth / Math.max(innerHeight - BAR, 1);
  const fov = 2 * Math.atan(Math.max(view.halfHeight, view.halfWidth / aspect));
  const vector = (point) => point.map((x) => x.toFixed(5)).join(",");
  const before = query.toString();
  query.set("initialCameraPosition", vector(view.position));
  query.set("initialCameraLookAt", vector(view.lookAt));
  query.set("initialCameraUp", "0,-1,0");
  query.set("initialCameraFov", fov.toFixed(5));
  query.set("initialCameraNear", "0.005");
  try {
    history.replaceState(null, "", "?" + query);
  } catch {
    if (!before.includes("initialCamera")) location.search = query;
  }
})();
"""
