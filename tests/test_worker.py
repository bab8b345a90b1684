"""The queue before the engines: one thread, batches, bounds, and an end that loses nothing."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

from er_jax.photographs.photograph import Photograph, photograph_of
from er_jax.utils.errors import ConfigError
from er_jax.web.engines import Choice, Engines
from er_jax.web.worker import BusyError, Worker

CHOICE = Choice()


class Counting:
    """An engine whose answers are the pictures' widths; wide pictures break it."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.cameras: list[tuple] = []
        self.threads: set[int] = set()

    def many(self, pictures, *, focal_px, principal_point_px):
        widths = [picture.size_px[0] for picture in pictures]
        self.batches.append(widths)
        self.cameras.append((focal_px, principal_point_px))
        self.threads.add(threading.get_ident())
        if any(width > 100 for width in widths):
            raise ValueError("too wide")
        return widths


class OneEngine(Engines):
    """Gives the same engine whatever is chosen."""

    def __init__(self, engine) -> None:
        super().__init__(detector=lambda image: [])
        self.engine = engine

    def of(self, choice):
        self.check(choice)
        return self.engine


def picture(width: int, height: int = 2) -> Photograph:
    return photograph_of(np.zeros((height, width, 3), np.uint8))


@pytest.fixture
def held():
    """A worker that is busy until `go` is set."""
    engine, go, began = Counting(), threading.Event(), threading.Event()
    worker = Worker(OneEngine(engine), waiting=6, waiting_pixels=1000, at_once=3)
    worker.run(CHOICE, lambda engine: (began.set(), go.wait(10)))
    assert began.wait(10)
    yield worker, engine, go
    go.set()
    worker.close()


def test_what_waits_together_is_done_together_in_its_order(held):
    worker, engine, go = held
    other = Choice(focal_px=(5.0, 6.0), principal_point_px=(1.0, 2.0))
    asked = [(1, CHOICE), (2, other), (3, CHOICE), (4, CHOICE), (5, CHOICE), (6, other)]
    futures = [worker.reconstruct(picture(width), choice) for width, choice in asked]
    assert worker.waiting == 6
    go.set()
    assert [future.result(10) for future in futures] == [1, 2, 3, 4, 5, 6]
    assert engine.batches == [[1, 3, 4], [2, 6], [5]]
    assert engine.cameras == [(None, None), ((5.0, 6.0), (1.0, 2.0)), (None, None)]
    assert len(engine.threads) == 1 and threading.get_ident() not in engine.threads


def test_one_picture_at_fault_spoils_no_other(held):
    worker, _, go = held
    futures = [worker.reconstruct(picture(width), CHOICE) for width in (1, 101, 3)]
    go.set()
    assert futures[0].result(10) == 1 and futures[2].result(10) == 3
    with pytest.raises(ValueError, match="too wide"):
        futures[1].result(10)


def test_no_more_waits_than_may(held):
    worker, _, go = held
    futures = [worker.reconstruct(picture(10), CHOICE) for _ in range(6)]
    with pytest.raises(BusyError, match="6 are waiting"):
        worker.reconstruct(picture(10), CHOICE)
    assert futures[0].cancel()
    go.set()
    assert [future.result(10) for future in futures[1:]] == [10] * 5
    with pytest.raises(CancelledError):
        futures[0].result(10)


def test_pictures_that_wait_have_no_more_pixels_than_may(held):
    worker, _, go = held
    worker.reconstruct(picture(20, 20), CHOICE)
    worker.reconstruct(picture(20, 30), CHOICE)
    with pytest.raises(BusyError, match="2 are waiting"):
        worker.reconstruct(picture(1, 1), CHOICE)
    go.set()


def test_a_picture_of_more_pixels_than_may_wait_is_taken_alone(held):
    worker, _, _ = held
    worker.reconstruct(picture(100, 20), CHOICE)
    with pytest.raises(BusyError, match="1 are waiting"):
        worker.reconstruct(picture(1, 1), CHOICE)


def test_the_end_waits_for_what_was_accepted(held):
    worker, engine, go = held
    future = worker.reconstruct(picture(7), CHOICE)
    ending = threading.Thread(target=worker.close)
    ending.start()
    while worker.alive:
        pass
    with pytest.raises(BusyError, match="closing"):
        worker.reconstruct(picture(8), CHOICE)
    go.set()
    ending.join(10)
    assert future.result(0) == 7 and engine.batches == [[7]]


def test_a_choice_that_is_none():
    engines = Engines({"mine": "nowhere"}, detector=lambda image: [])
    assert engines.usual == Choice("mine", "stand-in")
    with pytest.raises(ConfigError, match=r"network='yours': choose one of 'mine', 'none'"):
        engines.check(Choice("yours"))
    with pytest.raises(ConfigError, match=r"hand_model='MANO': choose one of 'stand-in'"):
        engines.check(Choice("mine", "MANO"))
