"""A flame graph as SVG: a program's time by call stack.

A frame's width is its share of the samples. Its callees are above it, in the order of their names. The SVG `title` of
a frame shows its name and share. The SVG contains no script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 1200
ROW = 16
TEXT_WIDTH = 6.6
"""Width of a character in a monospaced font of 11 px."""
MIN_SHARE = 0.002
"""Narrower frames are left out: they would be unreadable, and the file stays small."""
DEPTH_MAX = 60
"""Maximum number of frames drawn of a stack."""


@dataclass
class Frame:
    """A call, its number of samples (including callees), and its callees."""

    name: str
    count: int = 0
    callees: dict[str, Frame] = field(default_factory=dict)

    def add(self, stack: Sequence[str], count: int) -> None:
        """Count a stack, outermost call first."""
        frame = self
        frame.count += count
        for name in stack[:DEPTH_MAX]:
            frame = frame.callees.setdefault(name, Frame(name))
            frame.count += count


def draw(title: str, stacks: Iterable[tuple[Sequence[str], int]], colour: Callable[[str], str]) -> str:
    """Return the SVG of `stacks`: each one has its calls, outermost first, and its number of samples."""
    root = Frame("all")
    for stack, count in stacks:
        root.add(stack, count)
    boxes = list(_boxes(root, 0.0, 0, max(root.count, 1)))
    rows = 1 + max(depth for _, _, depth in boxes)
    height = (rows + 2) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="monospace" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="4" y="{ROW - 3}">{escape(title)}</text>',
    ]
    for frame, left, depth in boxes:
        width = frame.count / max(root.count, 1) * WIDTH
        top = height - (depth + 1) * ROW
        share = f"{escape(frame.name)}: {frame.count / max(root.count, 1):.1%}"
        shown = escape(frame.name[: int((width - 4) / TEXT_WIDTH)]) if width > 5 * TEXT_WIDTH else ""
        lines.append(
            f'<g><title>{share}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 1}" '
            f'fill="{colour(frame.name)}"/>'
            + (f'<text x="{left + 2:.1f}" y="{top + ROW - 5}">{shown}</text>' if shown else "")
            + "</g>"
        )
    return "\n".join([*lines, "</svg>", ""])


def _boxes(frame: Frame, left: float, depth: int, all_samples: int) -> Iterator[tuple[Frame, float, int]]:
    """Yield each frame that is wide enough, with its left edge in pixels and its depth."""
    if frame.count / all_samples < MIN_SHARE:
        return
    yield frame, left, depth
    for name in sorted(frame.callees):
        callee = frame.callees[name]
        yield from _boxes(callee, left, depth + 1, all_samples)
        left += callee.count / all_samples * WIDTH
