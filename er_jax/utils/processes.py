"""Worker processes that leave no orphans."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def follow_parent() -> None:
    """Makes this worker process end with its parent, and leave Ctrl-C to it.

    A parent that is killed cannot tell its workers; an orphan would go on writing, or wait forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "to be called in a worker process"

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
