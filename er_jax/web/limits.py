"""What one request, and all of them together, may ask for."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of the server.

    Attributes:
      body_bytes: largest picture file.
      pixels: largest picture.
      requests: that are read, wait or are done at once; more are told to come again.
      body_s: in which a request must have been read.
      answer_s: in which it must have been answered, waiting included.
    """

    body_bytes: int = 25_000_000
    pixels: int = 60_000_000
    requests: int = 64
    body_s: float = 20.0
    answer_s: float = 60.0
