"""A page to try it: a picture or a clip in, hands to turn and to take away out.

It is made with Gradio, of which only what the page needs is answered (`page_guard.py`), and which
asks no other server for anything: no fonts, no scripts, no telemetry.
"""

import asyncio
import dataclasses
import importlib.util
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from er_jax.utils.errors import ConfigError
from er_jax.web import page_style
from er_jax.web.page_files import Files, Kept
from er_jax.web.page_guard import Guard
from er_jax.web.page_work import PageLimits, Work
from er_jax.web.worker import Worker

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI

SWEEPS = 10
"""Of what is old, in the time that a file is kept."""


@dataclasses.dataclass(frozen=True, eq=False)
class Page:
    """The page, to be mounted.

    Attributes:
      blocks: its components.
      files: its folder.
      limits: of what may be asked.
      work: behind it.
    """

    blocks: "gradio.Blocks"
    files: Files
    limits: PageLimits
    work: Work

    def end(self) -> None:
        """Lets open browsers go, and gives clips up: to be called when the server is told to end.

        Without it the server waits for them. From any thread, and from a signal's handler.
        """
        self.work.end()


def make_page(
    worker: Worker,
    folder: Path,
    *,
    upload_bytes: int = PageLimits.picture_bytes,
    limits: PageLimits | None = None,
    kept: Kept | None = None,
    examples: tuple[Sequence[Path], Path] | None = None,
) -> Page:
    """The page, whose work the worker does.

    Args:
      worker: that others may use too.
      folder: of uploads and results, which nobody else uses; emptied at the end.
      upload_bytes: largest picture file.
      limits: of all else that may be asked; None: the usual ones.
      kept: what may lie in the folder, and how long; None: the usual.
      examples: pictures and a clip to try it with (`drawn_examples`); None: there are none.

    Raises:
      ConfigError: Gradio is not installed.
    """
    limits = dataclasses.replace(limits or PageLimits(), picture_bytes=upload_bytes)
    files = Files(folder, kept or Kept())
    prepare_gradio(files.folder)
    from er_jax.web.page_blocks import make_blocks

    work = Work(worker, files, limits)
    blocks = make_blocks(work, worker.engines, examples, files.kept.seconds)
    blocks.queue(max_size=limits.waiting, api_open=False, default_concurrency_limit=1)
    return Page(blocks, files, limits, work)


def mount(app: "FastAPI", page: Page) -> "FastAPI":
    """Puts the page at `/` of an application; what the application answers itself goes before.

    Args:
      app: with all its own paths.
      page: of which there is one in a process.
    """
    import gradio

    @asynccontextmanager
    async def lifespan(app: "FastAPI") -> AsyncIterator[None]:
        page.files.keep_what_is_there()
        sweeping = asyncio.create_task(_sweep(page.files))
        try:
            yield
        finally:
            sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await sweeping
            page.end()
            page.files.empty()

    upload_bytes = max(page.limits.picture_bytes, page.limits.clip_bytes)
    gradio.mount_gradio_app(
        app,
        page.blocks,
        path="/",
        app_kwargs={"lifespan": lifespan},
        footer_links=[],
        run_history=False,
        max_file_size=upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=page_style.theme(),
        css=page_style.CSS,
        head=page_style.HEAD,
    )
    # As `launch` sets them: without, Gradio lets calls name any file of the machine.
    page.blocks.has_launched = page.blocks.is_running = True
    mounted: Any = app.routes[-1]
    mounted.app.add_middleware(
        Guard, files=page.files, upload_bytes=upload_bytes, ending=page.work.ending
    )
    return app


def prepare_gradio(folder: Path) -> None:
    """Sets where Gradio puts files, and that it sends nothing anywhere; before it is imported.

    Raises:
      ConfigError: it is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError(
            "the page needs Gradio, which is not installed: pip install 'er_jax[web]'"
        )
    os.environ |= {
        "GRADIO_TEMP_DIR": str(folder),
        "GRADIO_EXAMPLES_CACHE": str(folder / "examples"),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }


async def _sweep(files: Files) -> None:
    while True:
        await asyncio.sleep(files.kept.seconds / SWEEPS)
        await asyncio.to_thread(files.sweep)
