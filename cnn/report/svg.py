"""SVG figures of a page."""

from collections.abc import Mapping

from cnn.look.scores import Reliability
from cnn.report.page import escaped, percent


def reliability_svg(bins: Mapping[str, Reliability]) -> str:
    """Returns a reliability diagram, accuracy by confidence with a circle per bin, of one or two titles."""
    left, top, side = 46, 14, 290
    parts = [f'<rect class="axis" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        x, y = left + tick * side, top + side - tick * side
        parts += [
            f'<path class="axis" d="M{x:.0f} {top}v{side}M{left} {y:.0f}h{side}"/>',
            f'<text x="{x:.0f}" y="{top + side + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{tick:g}</text>',
        ]
    parts += [
        f'<path class="ideal" d="M{left} {top + side}L{left + side} {top}"/>',
        f'<text x="{left + side / 2}" y="{top + side + 34}" text-anchor="middle">confidence</text>',
        f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">accuracy</text>',
    ]
    for number, (title, values) in enumerate(bins.items()):
        y = top + 18 + 18 * number
        parts.append(f'<circle class="bins{number}" cx="{left + 16}" cy="{y}" r="5"/>')
        parts.append(f'<text x="{left + 28}" y="{y + 4}">{escaped(title)}</text>')
        for confidence, accuracy, share in zip(values.confidence, values.accuracy, values.share, strict=True):
            if share > 0:
                radius = 3 + 11 * share**0.5
                circle = f'cx="{left + confidence * side:.1f}" cy="{top + side - accuracy * side:.1f}" r="{radius:.1f}"'
                label = f"{escaped(title)}: confidence {percent(confidence, 1)}, accuracy {percent(accuracy, 1)}, "
                label += f"{percent(share, 1)} of the images"
                parts.append(f'<circle class="bins{number}" {circle}><title>{label}</title></circle>')
    size = f'viewBox="0 0 {left + side + 20} {top + side + 44}"'
    label = "Reliability diagram: accuracy by confidence"
    return f'<svg class="reliability" {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def interval_svg(difference: float, ends: tuple[float, float], reach: float) -> str:
    """Returns a difference with its interval, as SVG on a scale from ``-reach`` to ``reach``."""
    low, high = ends
    low_x, x, high_x = (100 + 92 * value / reach for value in (low, difference, high))
    label = f"{difference:+.2f} points, {low:+.2f} to {high:+.2f}"
    return (
        f'<svg class="difference" viewBox="0 0 200 22" role="img" aria-label="{label}"><title>{label}</title>'
        f'<path class="axis" d="M4 11H196"/><path class="zero" d="M100 0V22"/>'
        f'<path class="interval" d="M{low_x:.1f} 11H{high_x:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="11" r="5"/></svg>'
    )
