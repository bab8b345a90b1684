"""MediaPipe's two hand networks: fetched once from its official package, checked, kept."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from er_jax.detection.types import DetectorError
from er_jax.utils.atomic_write import atomic_write
from er_jax.utils.cache import cache_dir
from er_jax.utils.errors import disk_error

logger = logging.getLogger(__name__)

PACKAGE = "mediapipe==0.10.21"
"""The last release with the two networks inside; it is neither installed nor imported."""
PALMS_FILE = "palm_detection_full.tflite"
LANDMARKS_FILE = "hand_landmark_full.tflite"
LICENCE_FILE = "LICENSE"

FILES = {
    PALMS_FILE: (
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    LANDMARKS_FILE: (
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
    LICENCE_FILE: (
        "mediapipe-0.10.21.dist-info/LICENSE",
        "8707eef0533987efc5b155d64761eeb6e20793f50b9bd1a68dad1cf4719d0ed8",
    ),
}
"""Each file's place in the package and its SHA-256."""
NETWORKS = (PALMS_FILE, LANDMARKS_FILE)

_PLATFORM = ("--python-version", "3.12", "--platform", "manylinux_2_28_x86_64")
_OFFLINE = (
    f"Without a network: copy {PALMS_FILE} and {LANDMARKS_FILE} out of the wheel of {PACKAGE} "
    "(mediapipe/modules/…) into a folder, and give that as --detector_dir."
)


def weights_dir(detector_dir: Path | None = None) -> Path:
    """The folder that holds both networks, each with the right checksum.

    Args:
      detector_dir: take them from there and fetch nothing; None: from the user's cache, into which
        they are fetched by pip where they are not.

    Raises:
      DetectorError: a file is missing in `detector_dir`, is another one, or cannot be fetched.
      DiskError: the cache cannot be written.
    """
    if detector_dir is not None:
        missing = [name for name in NETWORKS if not (detector_dir / name).is_file()]
        if missing:
            raise DetectorError(
                f"{detector_dir}: {' and '.join(missing)} not there. Put both networks of "
                f"{PACKAGE} into this folder (they are in its wheel under mediapipe/modules/), or "
                "leave --detector_dir out to have them fetched."
            )
        folder = detector_dir
    else:
        folder = cache_dir() / "detection" / PACKAGE.replace("==", "-")
        if not all((folder / name).is_file() for name in FILES):
            _fetch(folder)
    for name in NETWORKS:
        _check(folder / name)
    return folder


def _check(path: Path) -> None:
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DetectorError(f"{path}: cannot be read ({error.strerror}).") from None
    expected = FILES[path.name][1]
    if found != expected:
        raise DetectorError(
            f"{path}: its SHA-256 is {found}, expected {expected}. The file is damaged or of "
            "another release: delete it, so that it is fetched anew; in a folder of your own, "
            f"replace it by that of the wheel of {PACKAGE}."
        )


def _fetch(folder: Path) -> None:
    logger.info(
        "Fetching the hand detector's two networks into %s: from %s by pip, 35.6 MB, once "
        "(by Google, Apache License 2.0; its text lies beside them)",
        folder,
        PACKAGE,
    )
    with tempfile.TemporaryDirectory() as temporary:
        _unpack(_download(Path(temporary)), folder)


def _download(folder: Path) -> Path:
    """The package's wheel, as pip found it where the user's own settings say."""
    if importlib.util.find_spec("pip") is None:
        raise DetectorError(
            f"{sys.executable} has no pip to fetch {PACKAGE} by. Add it "
            f"(`{sys.executable} -m ensurepip`). {_OFFLINE}"
        )
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary=:all:", *_PLATFORM, PACKAGE, "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip().removeprefix("ERROR: ") if lines else "it does not say why"
        raise DetectorError(
            f"pip could not fetch {PACKAGE}: {reason}. "
            f"Run the same command again when there is a network. {_OFFLINE}"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    """Takes the files out of the wheel into `folder`, each whole, once all are the right ones."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            contents = {name: archive.read(place) for name, (place, _) in FILES.items()}
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DetectorError(f"{wheel.name} is not the wheel of {PACKAGE}: {error}.") from None
    for name, data in contents.items():
        found = hashlib.sha256(data).hexdigest()
        if found != FILES[name][1]:
            raise DetectorError(
                f"{wheel.name}: {name} in it has the SHA-256 {found}, expected {FILES[name][1]}. "
                f"What pip fetched is not the published {PACKAGE}: see which index it asks "
                "(`pip config list`)."
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in contents.items():
            temporary = folder / f"{name}.{os.getpid()}"
            with atomic_write(folder / name, temporary=temporary) as path:
                path.write_bytes(data)
    except OSError as error:
        raise disk_error(folder, error) from None
