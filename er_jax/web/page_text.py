"""What the page says of a result, as HTML that is read well by eyes and by screen readers."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from er_jax.photographs.result import Hand, Reconstruction
from er_jax.video.track import Clip, HandTrack

COLUMNS = ("Person", "Hand", "Score", "Wrist's distance", "Off its keypoints")
CLIP_COLUMNS = ("Person", "Hand", "Frames", "Time", "Score")
NOTHING_YET = "<p>What is found appears here.</p>"
API = """<details class="api"><summary>Use it from Python</summary><pre><code>\
from gradio_client import Client, handle_file
found, files = Client("<span class="origin">http://127.0.0.1:7860</span>").predict(\
handle_file("photo.jpg"), api_name="/picture")
print(found["persons"], files)</code></pre>
<p><code>api_name="/clip"</code> takes a clip. After the file there may be the network, the hand
model and the focal length in pixels.</p></details>"""
KINDS = {
    "_overlay.png": "the picture with the hands",
    ".mp4": "the clip with the hands",
    ".png": "picture, overlay, and the hands from the side",
    "_right.obj": "mesh of a right hand, the camera's axes",
    "_left.obj": "mesh of a left hand, the camera's axes",
    ".glb": "all hands, glTF's axes",
    ".json": "all numbers",
    ".parquet": "all numbers as a table",
}
"""Ends of files' names, the first that fits, and what they are."""
ADVICE = (
    "The detector needs hands of at least a twentieth of the picture, in light, and not wholly "
    "hidden. Gloves, grey pictures and hands that fill the picture are hard for it."
)


def of_picture(result: Reconstruction) -> str:
    """A headline, the table of hands, and what should be known."""
    if not result.hands:
        return _nothing(result.messages)
    hands, persons = len(result.hands), len(result.persons)
    headline = f"{_count(hands, 'hand')} of {_count(persons, 'person')}"
    rows = [
        (str(number), hand.side, *_numbers(hand))
        for number, person in enumerate(result.persons, 1)
        for hand in person.hands
    ]
    return f"{_headline(headline)}{_table('Hands in the picture', COLUMNS, rows)}" + _list(
        _notes(result)
    )


def of_clip(clip: Clip) -> str:
    """A headline, the table of tracks, and what should be known."""
    if not clip.tracks:
        return _nothing(clip.messages)
    persons = len({track.person for track in clip.tracks})
    headline = (
        f"{_count(len(clip.tracks), 'hand')} of {_count(persons, 'person')} in "
        f"{_count(len(clip.times_s), 'frame')}"
    )
    rows = [_track(track, clip) for track in clip.tracks]
    return f"{_headline(headline)}{_table('Hands in the clip', CLIP_COLUMNS, rows)}" + _list(
        _notes(clip)
    )


def progress(what: str, done: int, total: int) -> str:
    """A bar with its words."""
    if not total:
        return f'<p>{escape(what)} …</p><progress aria-label="{escape(what)}"></progress>'
    done = min(done, total)
    return (
        f"<p>{escape(what)}: frame {done} of {total}</p>"
        f'<progress aria-label="{escape(what)}" value="{done}" max="{total}"></progress>'
    )


def wrong(message: str) -> str:
    """What went wrong."""
    return f'<p class="wrong" role="alert"><strong>Not done.</strong> {escape(message)}</p>'


def introduction(kept_s: float) -> str:
    """What the page is.

    Args:
      kept_s: how long files lie here, seconds.
    """
    minutes = max(round(kept_s / 60), 1)
    return (
        '<div class="intro"><h1>Hands in 3D from one picture</h1>'
        "<p>Every person's hands are found and put into the camera's metres. All is done "
        "on the machine that serves this page; files are removed after "
        f"{_count(minutes, 'minute')}.</p></div>"
    )


def downloads(files: Iterable[Path]) -> str:
    """Links to the files of a result.

    Args:
      files: in the page's folder.
    """
    items = "".join(
        f'<li><a href="./gradio_api/file={quote(str(path))}" download="{escape(path.name)}">'
        f"{escape(path.name)}</a> <span>{_kind(path)}, {_size(path)}</span></li>"
        for path in files
    )
    return f"<h3>To take away</h3><ul>{items}</ul>"


def _kind(path: Path) -> str:
    return next((kind for end, kind in KINDS.items() if path.name.endswith(end)), path.suffix)


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(size / 1e3, 1):.0f} kB"


def _notes(result: Reconstruction | Clip) -> tuple[str, ...]:
    note = f"hands and their sizes are of the model: {result.hand_model}"
    return (*result.messages, note)


def _nothing(messages: Iterable[str]) -> str:
    others = [message for message in messages if message != "no hand was found"]
    return f"{_headline('No hand was found')}<p>{ADVICE}</p>{_list(others)}"


def _numbers(hand: Hand) -> tuple[str, str, str]:
    score = "–" if hand.score is None else f"{hand.score:.2f}"
    distance = f"{np.linalg.norm(hand.joints[0]):.2f} ± {hand.depth_sigma_m:.2f} m"
    return score, distance, f"{hand.reprojection_px:.1f} px"


def _track(track: HandTrack, clip: Clip) -> tuple[str, ...]:
    seen = ~track.filled
    first, last = clip.times_s[track.frames[[0, -1]]]
    score = f"{track.score[seen].mean():.2f}" if seen.any() else "–"
    frames = f"{len(track)} of {len(clip.times_s)}"
    return str(track.person + 1), track.side, frames, f"{first:.1f} to {last:.1f} s", score


def _headline(text: str) -> str:
    return f"<h2>{escape(text)}</h2>"


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _list(messages: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(_sentence(message))}</li>" for message in messages)
    return f"<h3>To know before it is trusted</h3><ul>{items}</ul>" if items else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
