"""A graph as one SVG file that needs nothing else: boxes in layers, colours by state, tooltips."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final
from xml.sax.saxutils import escape

from runtime.pictures.collapse import collapsed
from runtime.pictures.columns import columns
from runtime.pictures.graph import Graph, Node
from runtime.pictures.layers import Layers, depths, layered
from runtime.pictures.signs import SIGNS, sign_of

ACROSS_MAX: Final = 24
"""A layer with more tasks than that is drawn with fewer boxes."""
_HEIGHT: Final = 44
_LAYER: Final = 96
_GAP: Final = 20
_BEND: Final = 8
_MARGIN: Final = 24
_HEAD: Final = 76
_NARROW: Final = 7.4
_BROAD: Final = 9.8
_SMALL: Final = 0.84
_WIDTH_MIN: Final = 96
_LABEL_MAX: Final = 34
_NOTE_MAX: Final = 42
_LINE: Final = "#8b949e"
_CRITICAL: Final = "#d97706"
_STYLE: Final = (
    "text{font-family:ui-sans-serif,system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
    ".label{font-size:13px;fill:#1f2328}.note{font-size:11px;fill:#57606a}"
    ".head{font-size:16px;font-weight:600;fill:#1f2328}.key{font-size:12px;fill:#57606a}"
)


def svg(graph: Graph, *, across_max: int = ACROSS_MAX) -> str:
    """The picture as text; with `across_max` 0 every task has a box of its own."""

    def fits(candidate: Graph) -> bool:
        rows: dict[int, int] = {}
        for depth in depths(candidate.nodes):
            rows[depth] = rows.get(depth, 0) + 1
        return max(rows.values(), default=0) <= across_max

    found = graph if across_max == 0 else collapsed(graph, fits=fits)
    layers = layered(found.nodes)
    widths = [_width(node) for node in found.nodes]
    widths += [_BEND] * (len(layers.up) - layers.tasks)
    middles = columns(layers, widths, gap=_GAP)
    across = max((m + w // 2 for m, w in zip(middles, widths, strict=True)), default=0)
    legend = _legend(graph)
    width = max(across, 8 * len(graph.title) * 2, _legend_width(legend)) + 2 * _MARGIN
    shift = _MARGIN + (width - 2 * _MARGIN - across) // 2
    places = [(m + shift) for m in middles]
    height = _HEAD + _MARGIN + _LAYER * max(0, len(layers.rows) - 1) + _HEIGHT
    tops = {v: _HEAD + _LAYER * n for n, row in enumerate(layers.rows) for v in row}
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
            f' viewBox="0 0 {width} {height}" role="img">'
        ),
        f"<title>{_text(graph.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text class="head" x="{_MARGIN}" y="26">{_text(graph.title)}</text>',
        *_drawn_legend(legend),
        *_lines(found, layers, places, tops),
        *(_box(node, places[n], tops[n], widths[n]) for n, node in enumerate(found.nodes)),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _lines(graph: Graph, layers: Layers, places: Sequence[int], tops: dict[int, int]) -> list[str]:
    """Each line from a task to a child, through its bends, as one smooth path; critical last."""
    plain: list[str] = []
    marked: list[str] = []
    for child, node in enumerate(graph.nodes):
        for above in layers.up[child]:
            points = [(places[child], tops[child])]
            vertex = above
            while layers.is_bend(vertex):
                points.append((places[vertex], tops[vertex] + _HEIGHT))
                points.append((places[vertex], tops[vertex]))
                (vertex,) = layers.up[vertex]
            points.append((places[vertex], tops[vertex] + _HEIGHT))
            critical = node.critical and graph.nodes[vertex].critical
            colour, stroke = (_CRITICAL, 2.2) if critical else (_LINE, 1.2)
            path = (
                f'<path d="{_curve(points[::-1])}" fill="none" stroke="{colour}"'
                f' stroke-width="{stroke}"/>'
            )
            x, y = points[0]
            head = f'<path d="M{x - 4} {y - 7}L{x} {y}L{x + 4} {y - 7}Z" fill="{colour}"/>'
            (marked if critical else plain).append(path + head)
    return plain + marked


def _curve(points: Sequence[tuple[int, int]]) -> str:
    """Straight down within a layer, and from layer to layer a curve that begins and ends so."""
    parts = [f"M{points[0][0]} {points[0][1]}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        if x == to_x:
            parts.append(f"V{to_y}")
        else:
            half = (y + to_y) // 2
            parts.append(f"C{x} {half} {to_x} {half} {to_x} {to_y}")
    return "".join(parts)


def _box(node: Node, middle: int, top: int, width: int) -> str:
    sign = sign_of(node.state)
    left = middle - width // 2
    edge, stroke = (_CRITICAL, 2.4) if node.critical and node.state else (sign.edge, 1.2)
    dashes = ' stroke-dasharray="5 3"' if node.apart else ""
    parts = [f"<g><title>{_text(node.title or node.label)}</title>"]
    if node.count > 1:
        parts.append(
            f'<rect x="{left + 4}" y="{top + 4}" width="{width}" height="{_HEIGHT}" rx="8"'
            f' fill="{sign.fill}" stroke="{sign.edge}" stroke-width="1"/>'
        )
    parts.append(
        f'<rect x="{left}" y="{top}" width="{width}" height="{_HEIGHT}" rx="8"'
        f' fill="{sign.fill}" stroke="{edge}" stroke-width="{stroke}"{dashes}/>'
    )
    note = _note(node)
    baseline = top + (19 if note else 27)
    parts.append(
        f'<text class="label" x="{middle}" y="{baseline}" text-anchor="middle">'
        f"{_text(_label(node))}</text>"
    )
    if note:
        parts.append(
            f'<text class="note" x="{middle}" y="{top + 35}" text-anchor="middle">'
            f"{_text(note)}</text>"
        )
    return "".join([*parts, "</g>"])


def _label(node: Node) -> str:
    sign = sign_of(node.state).text
    many = f" x{node.count:,}" if node.count > 1 else ""
    items = f" x{sum(node.states.values()):,}" if node.count == 1 and node.states else ""
    return f"{sign} {_shortened(node.label, _LABEL_MAX)}{many}{items}".strip()


def _note(node: Node) -> str:
    return _shortened(node.note, _NOTE_MAX)


def _shortened(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}…{text[most // 2 + 1 - most :]}"


def _width(node: Node) -> int:
    wanted = max(_length(_label(node)), _SMALL * _length(_note(node))) + 24
    return max(_WIDTH_MIN, 2 * round(wanted / 2))


def _length(text: str) -> float:
    """About how wide a label is, whatever font the reader has."""
    return sum(_BROAD if c.isupper() or not c.isascii() else _NARROW for c in text)


def _legend(graph: Graph) -> list[str]:
    present = {node.state for node in graph.nodes}
    return [state for state in SIGNS if state in present]


def _legend_width(states: Sequence[str]) -> int:
    return sum(_key_width(state) for state in states)


def _key_width(state: str) -> int:
    return 40 + 7 * len(state)


def _drawn_legend(states: Sequence[str]) -> list[str]:
    parts, x = [], _MARGIN
    for state in states:
        sign = sign_of(state)
        parts.append(
            f'<rect x="{x}" y="38" width="14" height="14" rx="3" fill="{sign.fill}"'
            f' stroke="{sign.edge}"/><text class="key" x="{x + 20}" y="49">{state}</text>'
        )
        x += _key_width(state)
    return parts


def _text(text: str) -> str:
    """Text as XML can hold it: no control character has a place there, escaped or not."""
    return escape("".join(c if c.isprintable() or c == "\n" else " " for c in text))
