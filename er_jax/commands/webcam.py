"""Hands before a webcam, live: what `er_jax webcam` does."""

import argparse
import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live

from er_jax.commands import clips
from er_jax.commands.exit_codes import exit_with_message
from er_jax.commands.photographs import add_shared_options, begin, camera
from er_jax.detection.mediapipe_hands import MediaPipeHands
from er_jax.photographs.load import load
from er_jax.utils.arguments import numbers
from er_jax.video.frames import written_video
from er_jax.video.gltf import write_gltf
from er_jax.video.live import Latency, LiveHands, Viewer, Webcam
from er_jax.video.parquet import pyarrow_module, write_parquet
from er_jax.video.tracking import Tracker


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; the exit code is that of `er_jax.main`."""
    options = _parser().parse_args(arguments)
    with exit_with_message():
        begin(options.output)
        pyarrow_module()  # better known before anything is recorded
        asked = numbers("--size", options.size, 2)
        size = (round(asked[0]), round(asked[1])) if asked else None
        engine = load(weights=options.weights, mano_dir=options.mano_dir, detect=False)
        tracker = Tracker(MediaPipeHands(options.detector_dir, thorough=False))
        hands = LiveHands(engine, tracker, filtered=not options.no_smoothing, **camera(options))
        device = int(options.device) if options.device.isdigit() else options.device
        with Webcam(device, size) as webcam:
            run_live(webcam, hands, options.output, seconds=options.seconds, port=options.port)
        name = "webcam"
        clip = hands.clip(name)
        write_parquet(clip, engine.hand_model, options.output / f"{name}_hands.parquet")
        if clip.tracks:
            write_gltf(clip, engine.hand_model, options.output / f"{name}_hands.glb")
        clips.show(clip, options.output)
    return 0


def run_live(
    webcam: Webcam,
    hands: LiveHands,
    output: Path,
    *,
    seconds: float | None = None,
    port: int = 0,
    name: str = "webcam",
) -> None:
    """Shows and records the hands before a camera, until Ctrl-C or the camera's end.

    Args:
      webcam: the camera.
      hands: that are found in its frames.
      output: folder of the recording, `NAME_hands.mp4`.
      seconds: after which it ends; None: never.
      port: of the page that shows them; 0: any that is free.
      name: of the files.
    """
    latency = Latency()
    viewer = Viewer(port)
    console = Console(stderr=True)
    console.print(f"Look at {viewer.address} · Ctrl-C ends and keeps the recording")
    ends = time.monotonic() + seconds if seconds else float("inf")
    line = Live(console=console, transient=True) if console.is_terminal else None
    try:
        with (
            written_video(output / f"{name}_hands.mp4", 30.0) as video,
            line or contextlib.nullcontext(),
            contextlib.suppress(KeyboardInterrupt),
        ):
            for frame, taken in webcam:
                found = hands(frame)
                drawn = hands.draw(frame.pixels, found)
                viewer.show(drawn)
                latency.shown(taken)
                video.add(drawn, frame.time_s)
                if line is not None:
                    line.update(f"{len(found)} hands, {latency}, {webcam.dropped} frames dropped")
                if time.monotonic() >= ends:
                    break
    finally:
        viewer.close()
    logging.info("%d frames, %s, %d frames dropped", len(hands.times_s), latency, webcam.dropped)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="er_jax webcam",
        description="Reconstructs the hands before a webcam, shows them on a page of this machine, "
        "and records the drawn clip (MP4) and the hands (Parquet, GLB).",
    )
    add = parser.add_argument
    add("--device", default="0", help="the camera's number, or an address (0)")
    add("--size", help="width,height to ask the camera for")
    add("--seconds", type=float, help="after which it ends; without: at Ctrl-C")
    add("--port", type=int, default=0, help="of the page; without: one that is free")
    add("--no_smoothing", action="store_true", help="every frame's hands as they were fitted")
    add("--weights", type=Path, help="a trained network: its run's folder, or er.safetensors")
    add("--detector_dir", type=Path, help="of the detector's two networks")
    add_shared_options(parser)
    return parser
