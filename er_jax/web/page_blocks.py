"""The page's components and what they call. Gradio is imported here, and so only by who has it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from er_jax.photographs.result import Reconstruction
from er_jax.utils.errors import ConfigError, UserError
from er_jax.web import page_text
from er_jax.web.engines import NO_NETWORK, STAND_IN, Choice, Engines
from er_jax.web.page_results import Made
from er_jax.web.page_work import Work, focal_of
from er_jax.web.worker import BusyError

TITLE = "er_jax: hands in 3D"
BUSY = "Too much is being done here just now ({}): try again in a minute."
FAULT = "Something went wrong in this program; its log says what."
OPTIONS_LABEL = "Options: hand model, network, focal length"
HEIGHT_PX = 400
OVERLAY_TEXT = "The picture with the hands found in it: right ones amber, left ones blue"
CAMERA = (90, 80)
"""Degrees around and from above, as Gradio has it: from the picture's camera, a little above."""

Options = tuple[Any, Any, Any]
Handler = Callable[..., Any]


class Results(NamedTuple):
    """Where a result is shown."""

    summary: gr.Markdown
    seen: gr.Column
    overlay: gr.Image | gr.Video
    turned: gr.Column
    model: gr.Model3D
    mesh: gr.State
    files: gr.Markdown


def make_blocks(
    work: Work, engines: Engines, examples: tuple[Sequence[Path], Path] | None, kept_s: float
) -> gr.Blocks:
    """All that is seen, and the API.

    Args:
      work: that is done.
      engines: to choose from.
      examples: pictures and a clip; None: there are none.
      kept_s: how long files lie here, seconds.
    """
    pictures, clips = ([], []) if examples is None else (examples[0], [examples[1]])
    with gr.Blocks(title=TITLE, analytics_enabled=False) as blocks:
        _html(page_text.introduction(kept_s))
        with gr.Accordion(OPTIONS_LABEL, open=False, elem_id="options"):
            options = _options(engines)
        with gr.Tab("Picture"), gr.Row():
            with gr.Column():
                picture = _picture()
                picture_button = gr.Button("Find the hands", variant="primary")
                _examples(pictures, picture)
            with gr.Column():
                of_picture = _results(
                    gr.Image(
                        label="Picture with the hands found",
                        alt_text=OVERLAY_TEXT,
                        interactive=False,
                        buttons=["fullscreen"],
                        elem_classes="overlay",
                        render=False,
                    ),
                )
        with gr.Tab("Clip"), gr.Row():
            with gr.Column():
                clip = _clip()
                clip_button = gr.Button("Follow the hands", variant="primary")
                _examples(clips, clip)
            with gr.Column():
                of_clip = _results(
                    gr.Video(
                        label="Clip with the hands found",
                        interactive=False,
                        buttons=[],
                        loop=True,
                        elem_classes="overlay",
                        render=False,
                    ),
                )
        _html(page_text.API)
        _connect(work, (picture, picture_button, of_picture), (clip, clip_button, of_clip), options)
        _add_api(work, picture, clip, options)
    return blocks


def _options(engines: Engines) -> list[gr.components.Component]:
    usual = engines.usual
    networks = [
        ("none: fitted to the detector's keypoints" if name == NO_NETWORK else name, name)
        for name in engines.networks
    ]
    models = [
        ("stand-in: this project's own, not MANO" if name == STAND_IN else name, name)
        for name in engines.hand_models
    ]
    return [
        gr.Radio(networks, value=usual.network, label="Network"),
        gr.Radio(models, value=usual.hand_model, label="Hand model"),
        gr.Number(
            value=0,
            minimum=0,
            label="Focal length in pixels",
            info="Distances scale with it. 0: as the file says (EXIF), or assumed.",
        ),
    ]


def _html(text: str, **options: Any) -> gr.Markdown:
    """Not `gr.HTML`, whose templates are evaluated as code, which the page's policy forbids."""
    return gr.Markdown(text, sanitize_html=False, latex_delimiters=[], **options)


def _picture() -> gr.Image:
    return gr.Image(
        label="Picture",
        sources=["upload", "webcam", "clipboard"],
        type="filepath",
        image_mode=None,
        height=HEIGHT_PX,
        buttons=[],
        alt_text="The picture that was given",
        webcam_options=gr.WebcamOptions(mirror=False),  # mirrored, a right hand is a left one
        placeholder="Drop a picture here, or click to choose one",
        elem_id="picture",
    )


def _clip() -> gr.Video:
    return gr.Video(
        label="Clip",
        sources=["upload"],
        height=HEIGHT_PX,
        buttons=[],
        include_audio=True,  # as it is: to take it away would need FFmpeg
        elem_id="clip",
    )


def _examples(paths: Sequence[Path], component: gr.components.Component) -> None:
    if paths:
        gr.Examples(
            [[str(path)] for path in paths],
            component,
            label="Drawn examples",
            example_labels=[path.stem for path in paths],
            api_visibility="private",
            cache_examples=False,
        )


def _results(overlay: gr.Image | gr.Video) -> Results:
    summary = _html(page_text.NOTHING_YET, elem_classes="summary")
    with gr.Column(visible=False) as seen:
        overlay.render()
    with gr.Column(visible=False) as turned:
        model = gr.Model3D(
            label="Hands to turn: drag, or pinch and scroll",
            camera_position=(*CAMERA, None),
            height=HEIGHT_PX,
            interactive=False,
        )
    files = _html("", elem_classes="files")
    return Results(summary, seen, overlay, turned, model, gr.State(), files)


def _connect(
    work: Work,
    of_picture: tuple[gr.Image, gr.Button, Results],
    of_clip: tuple[gr.Video, gr.Button, Results],
    options: Sequence[gr.components.Component],
) -> None:
    def show_picture(file: Any, *chosen: Any) -> dict[Any, Any]:
        results = of_picture[2]
        if file is None:
            return _shown(results, page_text.NOTHING_YET)
        try:
            made = work.picture(_path(file), choice_of(*chosen))
        except Exception as error:
            return _shown(results, page_text.wrong(told(error)))
        return _shown(results, summary_of(made), made)

    def show_clip(file: Any, *chosen: Any) -> Iterator[dict[Any, Any]]:
        results = of_clip[2]
        if file is None:
            yield _shown(results, page_text.NOTHING_YET)
            return
        try:
            for step in work.clip(_path(file), choice_of(*chosen)):
                if isinstance(step, Made):
                    yield _shown(results, summary_of(step), step)
                else:
                    yield _shown(results, page_text.progress(step.what, step.done, step.total))
        except Exception as error:
            yield _shown(results, page_text.wrong(told(error)))

    handlers: list[tuple[Any, Handler]] = [(of_picture, show_picture), (of_clip, show_clip)]
    for (given, button, results), handler in handlers:
        gr.on(
            [given.change, button.click],
            handler,
            [given, *options],
            [one for one in results if one is not results.model],
            preprocess=False,
            show_progress_on=results.summary,
            trigger_mode="once",
            concurrency_limit=1,
            concurrency_id="device",
            api_visibility="private",
        ).then(  # Gradio's viewer shows no mesh that comes together with its place
            _turnable,
            results.mesh,
            results.model,
            show_progress="hidden",
            api_visibility="private",
        )


def _add_api(
    work: Work,
    picture: gr.Image,
    clip: gr.Video,
    options: Sequence[gr.components.Component],
) -> None:
    """What Gradio's client calls by name: it gets JSON and files."""

    def find(
        file: Any, network: Any, hand_model: Any, focal_px: Any
    ) -> tuple[dict[str, Any], list[str]]:
        with _as_gradio_tells_it():
            return _answer(work.picture(_path(file), choice_of(network, hand_model, focal_px)))

    def follow(
        file: Any, network: Any, hand_model: Any, focal_px: Any
    ) -> tuple[dict[str, Any], list[str]]:
        with _as_gradio_tells_it():
            *_, made = work.clip(_path(file), choice_of(network, hand_model, focal_px))
            assert isinstance(made, Made)
            return _answer(made)

    found, files = gr.JSON(visible=False), gr.File(visible=False, file_count="multiple")
    for name, given, call in (("picture", picture, find), ("clip", clip, follow)):
        gr.Button(visible=False).click(
            call,
            [given, *options],
            [found, files],
            preprocess=False,
            api_name=name,
            concurrency_limit=1,
            concurrency_id="device",
        )


def choice_of(network: Any, hand_model: Any, focal_px: Any) -> Choice:
    """The choice that the options say.

    Raises:
      ConfigError: the focal length is no number above zero.
    """
    return Choice(str(network), str(hand_model), focal_of(focal_px))


def told(error: Exception) -> str:
    """What is said of an error; of one that is a fault of this code the log says more."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, BusyError):
        return BUSY.format(error)
    logging.error("The page's request failed", exc_info=error)
    return FAULT


def summary_of(made: Made) -> str:
    """The result in words."""
    if isinstance(made.result, Reconstruction):
        return page_text.of_picture(made.result)
    return page_text.of_clip(made.result)


@contextmanager
def _as_gradio_tells_it() -> Iterator[None]:
    """Errors as Gradio sends them to its clients, with their words and nothing else."""
    try:
        yield
    except Exception as error:
        raise gr.Error(told(error), print_exception=False) from None


def _path(file: Any) -> Path:
    """Of an uploaded file, as Gradio hands it on.

    Raises:
      ConfigError: nothing was given.
    """
    data = file.get("video", file) if isinstance(file, dict) else None
    if not data or not data.get("path"):
        raise ConfigError("no file was given")
    return Path(data["path"])


def _shown(results: Results, summary: str, made: Made | None = None) -> dict[Any, Any]:
    """What changes on the page."""
    if made is None:
        return {
            results.summary: summary,
            results.seen: gr.Column(visible=False),
            results.turned: gr.Column(visible=False),
            results.files: "",
        }
    return {
        results.summary: summary,
        results.seen: gr.Column(visible=True),
        results.overlay: str(made.overlay),
        results.turned: gr.Column(visible=made.model is not None),
        results.mesh: None if made.model is None else (str(made.model), made.radius_m),
        results.files: page_text.downloads(made.files),
    }


def _turnable(mesh: tuple[str, float | None] | None) -> Any:
    """A mesh before a camera at a distance, metres; None: as far as it fits."""
    if mesh is None:
        return None
    path, radius_m = mesh
    return gr.Model3D(path, camera_position=(*CAMERA, radius_m))


def _answer(made: Made) -> tuple[dict[str, Any], list[str]]:
    files = [str(path) for path in made.files]
    if isinstance(made.result, Reconstruction):
        return made.result.to_dict(), files
    return {"messages": list(made.result.messages), "hands": len(made.result.tracks)}, files
