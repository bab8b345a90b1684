"""The page, driven in a real browser; what it keeps, refuses, and never asks other servers for."""

import importlib.util
import json
import os
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from drawn_hands import drawn
from PIL import Image
from test_photographs import SIZE, detected

from er_jax.detection import DetectedHand
from er_jax.utils.errors import BadImageError, ConfigError, DataError
from er_jax.video.frames import written_video
from er_jax.video.tracking import Tracker
from er_jax.web import examples, page_guard
from er_jax.web.engines import Choice, Engines
from er_jax.web.page_files import Files, FullError, Kept
from er_jax.web.page_work import PageLimits, Work
from er_jax.web.worker import Worker

if importlib.util.find_spec("gradio") is None:  # imported after the page has set what it does
    pytest.skip("Gradio is not installed", allow_module_level=True)
try:
    from playwright import sync_api
except ImportError:
    sync_api = None
CHROMIUM = sync_api and (shutil.which("chromium") or shutil.which("chromium-browser"))
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium or Playwright is missing")

HANDS = detected(drawn(1, (0, 1), seed=7))
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
DESKTOP, PHONE = {"width": 1280, "height": 1700}, {"width": 390, "height": 844}
UPLOAD_BYTES, CLIP_FRAMES, WAITING = 1_000_000, 40, 2
BRIGHT, DARK, SLOW = (200, 200, 200), (5, 5, 5), (200, 10, 10)
ANSWER_MS = 60_000


class Told:
    """A detector: the same hands in every bright picture; red ones take as long as it is told."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()
        self.waits = threading.Event()
        self.looked = 0

    def __call__(self, image: np.ndarray) -> list[DetectedHand]:
        self.looked += 1
        if image[..., 0].mean() > 4 * image[..., 1].mean():
            self.waits.set()
            assert self.go_on.wait(60)
        return HANDS if image.mean() > 30 else []

    def follow(self, image: np.ndarray, keypoints_px: np.ndarray) -> list[DetectedHand | None]:
        found = self(image)

        def nearest(points: np.ndarray) -> DetectedHand | None:
            return min(
                found, key=lambda hand: np.abs(hand.keypoints_px - points).mean(), default=None
            )

        return [nearest(points) for points in keypoints_px]


class ToldEngines(Engines):
    """Engines whose hands in clips are told too."""

    def __init__(self, detector: Told):
        super().__init__(detector=detector)
        self._told = detector

    def tracker(self) -> Tracker:
        return Tracker(self._told)


@dataclass
class Served:
    """The page's server, in a thread, and what it asked of the network."""

    address: str
    folder: Path
    page: object
    detector: Told
    worker: Worker
    server: object
    thread: threading.Thread
    outgoing: list = field(default_factory=list)

    def end(self) -> None:
        self.page.end()
        self.server.should_exit = True
        self.thread.join(30)


def picture(colour: tuple[int, int, int] = BRIGHT) -> Image.Image:
    return Image.new("RGB", SIZE, colour)


def clip(path: Path, frames: int = 12, colour: tuple[int, int, int] = BRIGHT) -> Path:
    with written_video(path, 15.0) as video:
        for index in range(frames):
            video.add(np.full((SIZE[1], SIZE[0], 3), colour, np.uint8), index / 15)
    return path


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """Files to hand in."""
    folder = tmp_path_factory.mktemp("given")
    for name, colour in (("bright", BRIGHT), ("dark", DARK), ("slow", SLOW)):
        picture(colour).save(folder / f"{name}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    clip(folder / "clip.mp4")
    clip(folder / "long.mp4", CLIP_FRAMES + 20)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if CHROMIUM is None:
        pytest.skip("Chromium or Playwright is missing")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def served(given, tmp_path_factory) -> Iterator[Served]:
    """The page with a known detector; on a machine without FFmpeg."""
    import uvicorn
    from fastapi import FastAPI

    outgoing = []
    with pytest.MonkeyPatch.context() as patched:
        (nothing := tmp_path_factory.mktemp("path")).chmod(0o755)
        patched.setenv("PATH", str(nothing))
        record(patched, outgoing)
        from er_jax.web.page import make_page, mount

        detector = Told()
        worker = Worker(ToldEngines(detector))
        app = FastAPI(openapi_url=None)
        app.get("/health")(lambda: "well")
        folder = tmp_path_factory.mktemp("page")
        page = make_page(
            worker,
            folder,
            upload_bytes=UPLOAD_BYTES,
            limits=PageLimits(clip_bytes=UPLOAD_BYTES, clip_frames=CLIP_FRAMES, waiting=WAITING),
            examples=([given / "bright.png"], given / "clip.mp4"),
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(uvicorn.Config(mount(app, page), log_level="error"))
            thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.05)
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            one = Served(address, folder, page, detector, worker, server, thread, outgoing)
            yield one
            detector.go_on.set()
            one.end()
            worker.close()


def record(patched: pytest.MonkeyPatch, outgoing: list) -> None:
    """Keeps what this process asks of other machines."""
    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def connected(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            outgoing.append(address)
        return connect(self, address)

    def resolved(host, *arguments, **options):
        if host not in (None, "", "127.0.0.1", "::1", "localhost"):
            outgoing.append(host)
            raise socket.gaierror("no network in this test")
        return resolve(host, *arguments, **options)

    patched.setattr(socket.socket, "connect", connected)
    patched.setattr(socket, "getaddrinfo", resolved)


class Visit:
    """A user before a window."""

    def __init__(self, context, served: Served):
        self.page = context.new_page()
        self.asked: list[str] = []
        context.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(served.address)
        self.page.get_by_role("button", name="Find the hands").wait_for()

    def give(self, path: Path, tab: str = "Picture") -> None:
        if tab != "Picture":
            self.page.get_by_role("tab", name=tab).click()
        with self.page.expect_file_chooser() as chosen:
            self.page.locator(f"#{tab.lower()} button.upload-container").click()
        chosen.value.set_files(path)

    @property
    def summary(self):
        return self.page.locator(".block.summary:visible")

    def reads(self, text: str):
        """Waits until the result says so."""
        sync_api.expect(self.summary).to_contain_text(text, timeout=ANSWER_MS)
        return self.summary


@pytest.fixture(scope="module")
def context(browser) -> Iterator:
    """A browser's profile, which keeps the page's scripts from one test to the next."""
    rights = ["clipboard-read", "clipboard-write", "camera"]
    with browser.new_context(viewport=DESKTOP, permissions=rights) as one:
        yield one


@pytest.fixture
def visit(context, served) -> Iterator[Visit]:
    one = Visit(context, served)
    yield one
    local = (served.address + "/", "data:", f"blob:{served.address}/")
    foreign = [url for url in one.asked if not url.startswith(local)]
    one.page.close()
    served.detector.go_on.set()
    assert foreign == []
    assert served.outgoing == []


# In the browser


@needs_browser
def test_a_picture_that_is_given_is_shown_with_its_hands(visit, given):
    visit.give(given / "bright.png")
    result = visit.reads("2 hands of 1 person")
    cells = result.locator("tbody tr").first.locator("td").all_inner_texts()
    assert cells[:3] == ["1", "right", "0.90"]
    assert re.fullmatch(r"0\.\d\d ± \d\.\d\d m", cells[3])
    assert re.fullmatch(r"\d+\.\d px", cells[4])
    assert "Focal length assumed" in result.inner_text()
    overlay = visit.page.get_by_alt_text("The picture with the hands found in it")
    assert (
        overlay.evaluate("async (one) => { await one.decode(); return one.naturalWidth }")
        == SIZE[0]
    )


@needs_browser
def test_both_hands_can_be_turned(visit, given):
    visit.give(given / "bright.png")
    visit.reads("2 hands")
    canvas = visit.page.get_by_role("img", name="The hands in 3D")
    canvas.wait_for(timeout=ANSWER_MS)

    def colours() -> tuple[int, int]:
        pixels = cv2.imdecode(np.frombuffer(canvas.screenshot(), np.uint8), cv2.IMREAD_COLOR)
        hues, saturation = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[..., :2].transpose(2, 0, 1)
        seen = saturation > 60
        return int((seen & (hues < 25)).sum()), int((seen & (np.abs(hues - 110.0) < 20)).sum())

    until(lambda: min(colours()) > 1000)
    before = canvas.screenshot()
    box = canvas.bounding_box()
    visit.page.mouse.move(box["x"] + 200, box["y"] + 200)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 320, box["y"] + 220, steps=5)
    visit.page.mouse.up()
    until(lambda: canvas.screenshot() != before)


@needs_browser
def test_everything_can_be_taken_away(visit, given, tmp_path):
    visit.give(given / "bright.png")
    visit.reads("2 hands")
    endings = []
    for link in visit.page.locator(".files a").all():
        with visit.page.expect_download() as download:
            link.click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.stat().st_size > 1000
        endings.append(path.name.removeprefix("bright_hands"))
    assert endings == [
        *("_overlay.png", "_right.obj", "_left.obj", ".glb", ".png", ".json", ".parquet"),
    ]
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "bright_hands.parquet")["handedness"].to_pylist() == [
        *("right", "left"),
    ]


@needs_browser
def test_a_picture_is_pasted(visit):
    visit.page.evaluate(
        """async () => {
          const canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [512, 400];
          const painter = canvas.getContext("2d");
          painter.fillStyle = "white";
          painter.fillRect(0, 0, 512, 400);
          const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
          await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }"""
    )
    visit.page.keyboard.press("Control+v")
    visit.reads("2 hands of 1 person")


@needs_browser
def test_a_picture_is_taken_by_the_webcam(visit):
    visit.page.get_by_role("button", name="Capture from camera").click()
    visit.page.get_by_text("Click to Access Webcam").click()
    video = visit.page.locator("#picture video")
    until(lambda: video.evaluate("(one) => one.videoWidth > 0 && one.currentTime > 0"))
    visit.page.locator("#picture").get_by_role("button", name="capture photo").click()
    visit.reads("hand")
    mirrored = visit.page.evaluate("""() => window.gradio_config.components.find(
      (one) => one.props.elem_id === "picture").props.webcam_options.mirror""")
    assert mirrored is False


@needs_browser
def test_a_clip_is_followed_and_plays(visit, given):
    visit.give(given / "clip.mp4", "Clip")
    result = visit.reads("2 hands of 1 person in 12 frames")
    assert result.locator("tbody tr").all_inner_texts()[0].split("\t")[:3] == [
        *("1", "right", "12 of 12"),
    ]
    assert visit.page.locator(".files:visible a").all_inner_texts() == [
        *("clip_hands.mp4", "clip_hands.glb", "clip_hands.parquet"),
    ]
    video = visit.page.locator("video:visible").last
    until(lambda: video.evaluate("(one) => one.readyState >= 2"))
    assert video.evaluate("(one) => one.videoWidth") == SIZE[0]
    visit.page.get_by_role("img", name="The hands in 3D").wait_for(timeout=ANSWER_MS)


@needs_browser
@pytest.mark.parametrize(
    ("name", "tab", "said"),
    [
        ("broken.jpg", "Picture", "broken.jpg: not an image"),
        ("long.mp4", "Clip", f"{CLIP_FRAMES} frames: cut it"),
    ],
)
def test_what_cannot_be_done_is_said_in_place_of_a_result(visit, given, name, tab, said):
    visit.give(given / name, tab)
    alert = visit.reads("Not done.").get_by_role("alert")
    assert said in alert.inner_text()
    assert "/" not in alert.inner_text()
    assert not visit.page.get_by_alt_text("The picture with the hands found in it").is_visible()


@needs_browser
def test_a_file_that_is_too_large_is_refused_before_it_is_sent(visit, given, served):
    before = files_in(served.folder)
    visit.give(given / "large.png")
    toast = visit.page.get_by_test_id("toast-body")
    toast.wait_for()
    assert "exceed the maximum allowed size" in toast.inner_text()
    assert files_in(served.folder) == before


@needs_browser
def test_a_picture_without_hands_is_shown_and_advice_given(visit, given):
    visit.give(given / "dark.png")
    result = visit.reads("No hand was found")
    assert "Gloves" in result.inner_text()
    overlay = visit.page.get_by_alt_text("The picture with the hands found in it")
    overlay.wait_for(state="visible", timeout=ANSWER_MS)
    assert not visit.page.get_by_text("Hands to turn").is_visible()
    assert ".glb" not in visit.page.locator(".files").first.inner_text()


@needs_browser
def test_of_two_users_each_gets_its_own_result_and_sees_the_queue(context, visit, served, given):
    served.detector.go_on.clear()
    served.detector.waits.clear()
    visit.give(given / "slow.png")
    assert served.detector.waits.wait(60)
    other = Visit(context, served)
    other.give(given / "dark.png")
    sync_api.expect(other.page.get_by_text("queue: 1/1")).to_be_visible(timeout=ANSWER_MS)
    assert "2 hands" not in visit.summary.inner_text()
    served.detector.go_on.set()
    visit.reads("2 hands of 1 person")
    other.reads("No hand was found")
    other.page.close()


@needs_browser
def test_who_finds_the_queue_full_is_told(visit, served, given):
    served.detector.go_on.clear()
    served.detector.waits.clear()
    jobs = [call(served, given / "slow.png") for _ in range(1 + WAITING)]
    assert served.detector.waits.wait(60)
    until(lambda: len(served.page.blocks._queue) == WAITING)
    visit.give(given / "bright.png")
    visit.page.get_by_text("As many are waiting as may wait here").wait_for(timeout=ANSWER_MS)
    served.detector.go_on.set()
    assert [len(job.result(60)[0]["persons"]) for job in jobs] == [1] * len(jobs)


@needs_browser
def test_an_example_is_one_click(visit):
    visit.page.get_by_role("button", name="bright").click()
    visit.reads("2 hands of 1 person")


@needs_browser
def test_the_focal_length_of_the_camera_arrives(visit, given):
    visit.page.get_by_text("Options: hand model, network, focal length").click()
    focal = visit.page.get_by_label("Focal length in pixels")
    focal.fill("620")
    until(lambda: focal.input_value() == "620" or focal.fill("620"))
    focal.press("Tab")
    visit.give(given / "bright.png")
    assert "assumed" not in visit.reads("2 hands").inner_text()


@needs_browser
def test_a_phone_shows_all_in_its_width(browser, served, given):
    phone = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    one = Visit(phone, served)

    def width() -> int:
        return one.page.evaluate("document.documentElement.scrollWidth")

    assert width() == PHONE["width"]
    one.give(given / "bright.png")
    one.reads("2 hands")
    assert width() == PHONE["width"]
    columns = one.page.locator(".tabitem:visible .row > .column").all()
    assert len({column.bounding_box()["x"] for column in columns}) == 1
    one.give(given / "clip.mp4", "Clip")
    one.reads("2 hands")
    assert width() == PHONE["width"]
    phone.close()


@needs_browser
def test_it_can_be_used_by_keyboard_and_by_ear(visit, given):
    page = visit.page
    assert page.locator("html").get_attribute("lang") == "en"
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.textContent.trim()"))
    order = [name for name in reached if name in ("Picture", "Find the hands", "bright")]
    assert order[:3] == ["Picture", "Find the hands", "bright"]
    page.keyboard.press("Tab")
    visit.give(given / "bright.png")
    visit.reads("2 hands")
    page.get_by_role("img", name="The hands in 3D").wait_for(timeout=ANSWER_MS)
    assert visit.summary.get_attribute("aria-live") == "polite"
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, a[href], canvas")].filter((one) =>
          one.checkVisibility() && !(one.textContent.trim() || one.ariaLabel || one.title ||
          one.labels?.length || one.querySelector("[aria-label], [alt]"))
          ).map((one) => one.outerHTML)"""
    )
    assert nameless == []


# By program


def call(served: Served, path: Path, name: str = "/picture", *chosen):
    from gradio_client import Client, handle_file

    return Client(served.address, verbose=False).submit(handle_file(path), *chosen, api_name=name)


def test_three_lines_of_python_use_it(served, given, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "docs" / "page.md").read_text()
    (lines,) = re.findall(r"```python\n(from gradio_client.*?)```", text, re.S)
    assert len(list(filter(None, lines.splitlines()))) == 3
    monkeypatch.chdir(tmp_path)
    shutil.copy(given / "bright.png", tmp_path / "photo.jpg")
    known = {}
    exec(lines.replace("http://127.0.0.1:7860", served.address), known)
    assert len(known["found"]["persons"]) == 1
    names = {Path(path).name for path in known["files"]}
    assert {"photo_hands.glb", "photo_hands.parquet", "photo_hands_overlay.png"} <= names
    with urllib.request.urlopen(f"{served.address}/health") as answer:
        assert json.load(answer) == "well"


def test_a_program_is_told_what_is_wrong(served, given):
    from gradio_client.exceptions import AppError

    for path, name, chosen, said in (
        (given / "broken.jpg", "/picture", (), "not an image"),
        (given / "clip.mp4", "/picture", (), "no kind of file"),
        (given / "bright.png", "/picture", ("none", "stand-in", -4), "above zero"),
        (given / "bright.png", "/picture", ("other",), "network='other': choose one of 'none'"),
        (given / "broken.jpg", "/clip", (), "no kind of file"),
    ):
        with pytest.raises(AppError, match=said) as told:
            call(served, path, name, *chosen).result(60)
        assert str(served.folder) not in str(told.value)


def test_a_fault_of_ours_is_logged_and_not_shown(served, given, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError("the secret")

    from gradio_client.exceptions import AppError

    monkeypatch.setattr(served.page.work, "picture", fails)
    with pytest.raises(AppError, match="its log says what") as told:
        call(served, given / "bright.png").result(60)
    assert "secret" not in str(told.value)
    assert "the secret" in caplog.text


def test_a_clip_by_program(served, given):
    found, files = call(served, given / "clip.mp4", "/clip").result(60)
    assert found["hands"] == 2
    assert [Path(path).suffix for path in files] == [".mp4", ".glb", ".parquet"]


# What is refused


def ask(served: Served, path: str, body: object = None, method: str | None = None, **headers):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | headers
    request = urllib.request.Request(served.address + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode(errors="replace"), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace"), error.headers


def file_data(path: str, **more) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def joined(served: Served, file: dict) -> tuple[int, str]:
    number = next(n for n, fn in served.page.blocks.fns.items() if fn.api_name == "picture")
    body = {"data": [file, "none", "stand-in", 0], "fn_index": number, "session_hash": "a"}
    return ask(served, "/gradio_api/queue/join", body)[:2]


@pytest.mark.parametrize("path", ["/etc/hostname", "README.md", "../secret", "PAGE/../x.png", ""])
def test_a_call_names_no_file_but_an_uploaded_one(served, path):
    status, said = joined(served, file_data(path.replace("PAGE", str(served.folder))))
    assert status == 400
    assert "was not uploaded" in said


def test_gradio_itself_would_refuse_it_too(served, given, monkeypatch, tmp_path):
    """The second wall, where the first is down."""
    shutil.copy(given / "bright.png", tmp_path)
    monkeypatch.setattr(page_guard, "_paths", lambda value: iter(()))
    found = []
    monkeypatch.setattr(served.page.work, "picture", lambda *given: found.append(given))
    status, said = joined(served, file_data(str(tmp_path / "bright.png")))
    assert status == 200
    data = "data: "
    with urllib.request.urlopen(f"{served.address}/gradio_api/queue/data?session_hash=a") as stream:
        for line in stream:
            text = line.decode().removeprefix(data)
            if "process_completed" in text:
                break
    assert json.loads(text)["success"] is False, said
    assert found == []


@pytest.mark.parametrize(
    "file",
    [
        file_data("http://example.com/a.png"),
        file_data("https://huggingface.co/a.png"),
        file_data("", url="data:image/png;base64,AAAA"),
    ],
)
def test_the_server_fetches_nothing_for_a_call(served, file):
    assert joined(served, file)[0] == 400
    assert served.outgoing == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=http://example.com/a.png"),
        ("HEAD", "/gradio_api/file=https://huggingface.co/a.png"),
        ("GET", "/gradio_api/proxy=https://a.hf.space/x"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/run-history/buckets"),
        ("GET", "/monitoring/summary"),
        ("GET", "/gradio_api/openapi.json"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/process_recording"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/login"),
    ],
)
def test_what_the_page_does_not_need_is_not_there(served, method, path):
    status, said, _ = ask(served, path, {} if method == "POST" else None, method)
    assert status == 404
    assert said in ("not found", "")
    assert served.outgoing == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "README.md"])
def test_files_of_the_machine_are_not_served(served, path):
    assert ask(served, f"/gradio_api/file={path}")[0] == 403


def test_the_page_names_no_other_server(served):
    status, text, headers = ask(served, "/")
    assert status == 200
    assert "<html" in text and "og:image" not in text and "twitter:" not in text
    links = re.findall(r"(?:src|href|content)\s*=\s*[\"'](https?://[^\"']+)", text)
    assert links == []
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy
    style = ask(served, "/theme.css")[1]
    assert "http://fonts" not in style and "https://" not in style


def test_an_upload_of_unknown_or_too_large_size_is_refused(served):
    large = {"content-length": str(UPLOAD_BYTES + 20_000)}
    status, said, _ = ask(served, "/gradio_api/upload", b"", **large)
    assert (status, said) == (413, "The file is too large: 1 MB at most.")
    status, _, _ = ask(served, "/gradio_api/queue/join", b"[" + b"1," * 200_000 + b"1]")
    assert status == 413
    assert ask(served, "/gradio_api/queue/join", b"{")[0] == 400


def test_an_upload_for_which_there_is_no_room_is_refused(served, monkeypatch):
    monkeypatch.setattr(served.page.files, "kept", Kept(bytes=1000))
    status, said, _ = ask(served, "/gradio_api/upload", b"x" * 2000)
    assert status == 507
    assert "30 minutes after they were made" in said


# The folder


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_old_files_are_removed_and_the_examples_stay(tmp_path, monkeypatch):
    files = Files(tmp_path, Kept(seconds=60))
    (tmp_path / "example.png").write_text("stays")
    files.keep_what_is_there()
    made = files.new_folder()
    (made / "result.glb").write_text("goes")
    files.sweep()
    assert (made / "result.glb").exists()
    monkeypatch.setattr(
        "er_jax.web.page_files.time", SimpleNamespace(time=lambda: time.time() + 61)
    )
    files.sweep()
    assert files_in(tmp_path) == {tmp_path / "example.png"}
    assert not made.exists()
    files.empty()
    assert list(tmp_path.iterdir()) == []


def test_no_more_lies_in_the_folder_than_may(tmp_path):
    files = Files(tmp_path, Kept(bytes=100, files=3))
    (tmp_path / "a").write_bytes(b"x" * 50)
    with files.room(40), pytest.raises(FullError), files.room(20):
        raise AssertionError
    with files.room(20):
        pass
    (tmp_path / "b").write_bytes(b"x")
    with files.room(1), pytest.raises(FullError), files.room(1):
        raise AssertionError


def test_results_have_names_that_cannot_be_guessed(tmp_path):
    names = {Files(tmp_path / str(i), Kept()).new_folder().name for i in range(5)}
    assert len(names) == 5
    assert all(len(name) >= 32 for name in names)


# The work


@pytest.fixture
def work(tmp_path) -> Iterator[tuple[Work, Told, Files]]:
    detector = Told()
    worker = Worker(ToldEngines(detector))
    files = Files(tmp_path / "page", Kept())
    limits = PageLimits(picture_bytes=UPLOAD_BYTES, pixels=300_000, clip_frames=CLIP_FRAMES)
    yield Work(worker, files, limits), detector, files
    detector.go_on.set()
    worker.close()


def test_a_clip_that_nobody_waits_for_is_given_up(work, tmp_path):
    done, detector, files = work
    detector.go_on.clear()
    steps = done.clip(clip(tmp_path / "slow.mp4", colour=SLOW), Choice())
    next(steps)
    assert detector.waits.wait(60)
    folders = list((files.folder / "results").iterdir())
    steps.close()
    detector.go_on.set()
    picture().save(tmp_path / "a.png")
    assert len(done.picture(tmp_path / "a.png", Choice()).result.hands) == 2
    assert detector.looked == 2  # at the clip's first frame, and at the picture
    assert not any(folder.exists() for folder in folders)


def test_how_far_a_clip_is_is_told(work, tmp_path):
    done, detector, _ = work
    detector.go_on.clear()
    steps = done.clip(clip(tmp_path / "slow.mp4", colour=SLOW), Choice())
    until(lambda: next(steps).done == 1)
    step = next(steps)
    assert (step.what, step.total) == ("Following the hands", 12)
    detector.go_on.set()
    *_, made = steps
    assert made.overlay.name == "slow_hands.mp4"
    assert len(made.result.tracks) == 2


def test_pictures_that_are_refused(work, tmp_path):
    done, _, files = work
    picture().save(tmp_path / "good.png")
    shutil.copy(tmp_path / "good.png", tmp_path / "phone.HEIC")
    (tmp_path / "large.png").write_bytes(b"x" * (UPLOAD_BYTES + 1))
    Image.new("RGB", (600, 600)).save(tmp_path / "wide.png")
    for name, said in (
        ("phone.HEIC", "Most Compatible"),
        ("large.png", "1 MB are more than the 1 MB"),
        ("wide.png", "megapixels"),
        ("gone.png", "has been removed"),
    ):
        with pytest.raises(BadImageError, match=said):
            done.picture(tmp_path / name, Choice())
    assert not files_in(files.folder)


def test_a_clip_of_too_large_frames_is_refused(work, tmp_path):
    done, _, files = work
    done.limits = PageLimits(frame_pixels=100_000)
    with pytest.raises(DataError, match="frames of 0 megapixels"):
        list(done.clip(clip(tmp_path / "moving.mp4"), Choice()))
    assert not files_in(files.folder)


def test_two_pictures_of_one_name_do_not_meet(work, tmp_path):
    done, _, _ = work
    picture().save(tmp_path / "a.png")
    one, other = (done.picture(tmp_path / "a.png", Choice()) for _ in range(2))
    assert one.overlay != other.overlay
    assert one.overlay.exists() and other.overlay.exists()


# Examples, and what is missing


def test_the_examples_are_drawn_once(tmp_path, monkeypatch, detector_dir):
    from er_jax.detection.mediapipe_hands import MediaPipeHands

    monkeypatch.setattr(examples, "CLIP_S", 0.2)
    pictures, moving = examples.drawn_examples(tmp_path)
    detector = MediaPipeHands(detector_dir)
    for path in pictures:
        assert len(detector(cv2.imread(str(path))[..., ::-1])) == 2, path.name
    assert moving.stat().st_size > 1000
    monkeypatch.setattr(examples, "_draw", lambda folder: pytest.fail("drawn again"))
    assert examples.drawn_examples(tmp_path) == (pictures, moving)
    assert [path.name for path in tmp_path.iterdir()] == [f"examples_{examples.VERSION}"]


def test_without_gradio_it_is_said_what_to_install(tmp_path, monkeypatch):
    from er_jax.web import page

    monkeypatch.setattr(page.importlib.util, "find_spec", lambda name: None)
    before = dict(os.environ)
    with pytest.raises(ConfigError, match=r"pip install 'er_jax\[web\]'"):
        page.make_page(SimpleNamespace(), tmp_path)
    assert dict(os.environ) == before


def until(holds, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not come about"
        time.sleep(0.1)


# The end


@needs_browser
def test_the_end_waits_for_no_browser_and_leaves_nothing(context, served, given):
    one = Visit(context, served)
    one.give(given / "bright.png")
    one.reads("2 hands")
    assert files_in(served.folder)
    served.end()
    assert not served.thread.is_alive()
    assert list(served.folder.iterdir()) == []
    one.page.close()
