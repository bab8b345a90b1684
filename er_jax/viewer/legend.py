"""What the colours mean, as HTML for the live viewer's panel and for the page."""

from er_jax.mano import HANDS
from er_jax.rendering.overlays import HAND_COLOURS
from er_jax.viewer.confidence import SURE_TO_UNSURE, UNSURE_M


def legend() -> str:
    """Colours of hands and of joints; styles are in it."""
    sides = " &nbsp; ".join(
        f'<span style="color:{_css(colour)}">■</span> {side}'
        for side, colour in zip(HANDS, HAND_COLOURS, strict=True)
    )
    stops = ", ".join(f"rgb{colour}" for colour in SURE_TO_UNSURE)
    return (
        f"<div>{sides} hand</div><div>Joints: standard deviation from the wrist</div>"
        '<div style="height:10px;border:1px solid #999;'
        f'background:linear-gradient(to right, {stops})"></div>'
        '<div style="display:flex;justify-content:space-between;font-size:85%">'
        f"<span>0</span><span>{1000 * UNSURE_M:.0f} mm and more</span></div>"
    )


def _css(colour: tuple[float, float, float]) -> str:
    return f"rgb({', '.join(str(round(255 * channel)) for channel in colour)})"
