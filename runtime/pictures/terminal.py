"""A graph in characters: boxes in layers, lines between them, within a given width.

What is too wide is drawn with fewer boxes, each for many tasks; what is too wide even so is told
layer by layer, without lines. A line that passes over another is drawn unbroken; the other breaks.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from runtime.pictures.canvas import Canvas, Piece
from runtime.pictures.collapse import collapsed
from runtime.pictures.columns import columns
from runtime.pictures.graph import Graph, Node, counted
from runtime.pictures.layers import Layers, depths, layered
from runtime.pictures.routes import Bus, buses_between, tracks
from runtime.pictures.signs import sign_of

_GAP: Final = 2
_BEND: Final = 3
_LABEL_MAX: Final = 32
_LABEL_MIN: Final = 14
_COMPACT_LAYERS: Final = 14
"""With more layers than that, boxes have no borders above and below."""
_LISTED_LAYERS: Final = 200
_VERTICES_MAX: Final = 1_500
"""More than that, bends included, is not laid out for a terminal."""


class Drawing(msgspec.Struct, frozen=True):
    """The rows of a picture, and the graph as it was drawn."""

    rows: list[list[Piece]]
    graph: Graph


def draw(graph: Graph, *, width: int, plain: bool = False) -> Drawing:
    """Draw a graph.

    Args:
        graph: what to draw.
        width: columns there are.
        plain: ASCII only, and no styles.
    """

    def fits(candidate: Graph) -> bool:
        return _laid_out(candidate, width=width, plain=plain) is not None

    found = collapsed(graph, fits=fits)
    laid = _laid_out(found, width=width, plain=plain)
    if laid is None:
        return Drawing(_listed(found, width=width, plain=plain), found)
    return Drawing(laid.draw(), found)


class _Sheet:
    """One layout, ready to be drawn."""

    def __init__(self, graph: Graph, layers: Layers, *, label_max: int, plain: bool) -> None:
        self._nodes = graph.nodes
        self._layers = layers
        self._plain = plain
        self._texts = [_text(node, label_max=label_max, plain=plain) for node in graph.nodes]
        bends = len(layers.up) - layers.tasks
        self._widths = [len(text) + 4 for text in self._texts] + [_BEND] * bends
        self._ports = columns(layers, self._widths, gap=_GAP)
        self._tall = len(layers.rows) <= _COMPACT_LAYERS
        self.width = max(
            (self._left(v) + self._widths[v] for v in range(len(self._widths))), default=0
        )

    def draw(self) -> list[list[Piece]]:
        """The rows."""
        canvas = Canvas(plain=self._plain)
        boxes = list(self._ports)
        height = 3 if self._tall else 1
        top = 0
        for number, row in enumerate(self._layers.rows):
            buses: list[Bus] = []
            if number:
                above = self._layers.rows[number - 1]
                buses = buses_between(above, self._layers.down, self._ports, self._room(row, boxes))
                rows = tracks(buses, self._ports)
                below = top + 1 + max(rows, default=-1)
                self._wire(canvas, buses, rows, top=top, bottom=below)
                top = below + 1
            for vertex in row:
                self._box(canvas, vertex, boxes[vertex], top, height)
            top += height
        return canvas.lines()

    def _room(self, row: Sequence[int], boxes: Sequence[int]) -> dict[int, range]:
        """Where a line may come down into each vertex."""
        found = {}
        for vertex in row:
            left = boxes[vertex] - self._widths[vertex] // 2
            inner = 0 if self._layers.is_bend(vertex) else 1
            found[vertex] = range(left + inner, left + self._widths[vertex] - inner)
        return found

    def _wire(
        self, canvas: Canvas, buses: Sequence[Bus], rows: Sequence[int], *, top: int, bottom: int
    ) -> None:
        at = {id(bus): top + row for bus, row in zip(buses, rows, strict=True)}
        for bus in buses:
            places = [self._ports[v] for v in (*bus.sources, *bus.targets)]
            canvas.across(at[id(bus)], min(places), max(places))
        into: dict[int, list[Bus]] = {}
        for bus in buses:
            for target in bus.targets:
                into.setdefault(target, []).append(bus)
        for target, found in into.items():
            port = self._ports[target]
            joined = frozenset(at[id(bus)] for bus in found)
            canvas.along(port, min(joined), bottom, joins=joined)
            if self._layers.is_bend(target):
                canvas.stub(bottom, port, up=True, down=True)
            else:
                canvas.text(bottom, port, "v" if self._plain else "▼", "" if self._plain else "dim")
        for bus in buses:
            for source in bus.sources:
                port, row = self._ports[source], at[id(bus)]
                canvas.along(port, top, row, joins=frozenset({row}))
                canvas.stub(top, port, up=True)

    def _box(self, canvas: Canvas, vertex: int, middle: int, top: int, height: int) -> None:
        port = self._ports[vertex]
        if self._layers.is_bend(vertex):
            canvas.along(port, top, top + height - 1, joins=frozenset())
            for row in (top, top + height - 1):
                canvas.stub(row, port, up=True, down=True)
            return
        node, text = self._nodes[vertex], self._texts[vertex]
        style = "" if self._plain else sign_of(node.state).style
        border = f"bold {style}".strip() if node.critical and not self._plain else style
        left = middle - self._widths[vertex] // 2
        sides = ("[", "]") if self._plain and height == 1 else ("|", "|")
        sides = sides if self._plain else ("│", "│")
        if node.critical and node.state is not None:
            sides = ("#", "#") if self._plain else ("┃", "┃")
        line = top
        if height > 1:
            ends = ("+", "-", "+") if self._plain else ("╭", "─", "╮")
            across = ends[1] * (len(text) + 2)
            canvas.text(top, left, f"{ends[0]}{across}{ends[2]}", border)
            ends = ("+", "-", "+") if self._plain else ("╰", "─", "╯")
            canvas.text(top + 2, left, f"{ends[0]}{across}{ends[2]}", border)
            if self._layers.down[vertex] and not self._plain:
                canvas.text(top + 2, port, "┬", border)
            line = top + 1
        canvas.text(line, left, sides[0], border)
        canvas.text(line, left + 1, f" {text} ", style)
        canvas.text(line, left + len(text) + 3, sides[1], border)

    def _left(self, vertex: int) -> int:
        return self._ports[vertex] - self._widths[vertex] // 2


def _laid_out(graph: Graph, *, width: int, plain: bool) -> _Sheet | None:
    """The layout with the longest labels that fit; None where none does."""
    if len(graph.nodes) > _VERTICES_MAX or _too_many_at_once(graph, width):
        return None
    layers = layered(graph.nodes)
    if len(layers.up) > _VERTICES_MAX:
        return None
    for label_max in (_LABEL_MAX, 20, _LABEL_MIN):
        sheet = _Sheet(graph, layers, label_max=label_max, plain=plain)
        if sheet.width <= width:
            return sheet
    return None


def _too_many_at_once(graph: Graph, width: int) -> bool:
    """Whether a layer has more boxes than could stand beside each other, whatever their labels."""
    counts: dict[int, int] = {}
    for depth in depths(graph.nodes):
        counts[depth] = counts.get(depth, 0) + 1
    return max(counts.values(), default=0) * 8 > width + _GAP


def _text(node: Node, *, label_max: int, plain: bool) -> str:
    sign = sign_of(node.state)
    # The end of a name tells it from others of its kind.
    label = _shortened(node.label, label_max, plain=plain)
    many = f" x{node.count:,}" if node.count > 1 else ""
    items = f" x{sum(node.states.values()):,}" if node.count == 1 and node.states else ""
    note = f" {_shortened(node.note, label_max, plain=plain)}" if node.note else ""
    lead = sign.ascii if plain else sign.text
    return _printable(f"{lead} {label}{many}{items}{note}".strip(), plain=plain)


def _shortened(text: str, most: int, *, plain: bool) -> str:
    if len(text) <= most:
        return text
    mark = "~" if plain else "…"
    head = most // 2
    return f"{text[:head]}{mark}{text[head + 1 - most :]}"


def _printable(text: str, *, plain: bool) -> str:
    return "".join(c if c.isprintable() and not (plain and not c.isascii()) else " " for c in text)


def _listed(graph: Graph, *, width: int, plain: bool) -> list[list[Piece]]:
    """The layers in words, for what no picture can hold."""
    rows: dict[int, list[Node]] = {}
    for depth, node in zip(depths(graph.nodes), graph.nodes, strict=True):
        rows.setdefault(depth, []).append(node)
    found: list[list[Piece]] = []
    for number, nodes in rows.items():
        if number == _LISTED_LAYERS:
            found.append([(f"... and {len(rows) - number:,} layers more", "")])
            break
        count = sum(node.count for node in nodes)
        states: dict[str, int] = {}
        for node in nodes:
            own = {node.state: node.count} if node.state is not None else {}
            for state, many in (node.states if node.count > 1 else own).items():
                states[state] = states.get(state, 0) + many
        names = ", ".join(_text(node, label_max=_LABEL_MIN, plain=plain) for node in nodes)
        told = counted(states)
        line = (
            f"layer {number + 1}: {count:,} tasks" + (f" ({told})" if told else "") + f": {names}"
        )
        found.append([(_shortened(line, width, plain=plain), "")])
    return found
