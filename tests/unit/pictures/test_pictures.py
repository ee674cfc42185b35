"""Pictures of graphs: laws of layout for any graph, and what people see of known ones."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.pictures.collapse import collapsed, grouped, in_a_row
from runtime.pictures.columns import columns, spread
from runtime.pictures.dot import dot, quoted
from runtime.pictures.graph import Graph, Node
from runtime.pictures.layers import crossings, depths, layered
from runtime.pictures.svg import svg
from runtime.pictures.terminal import draw

STATES = (None, "succeeded", "failed", "running", "blocked", "skipped")


@st.composite
def graphs(draw, most=14):
    nodes = []
    for n in range(draw(st.integers(0, most))):
        parents = draw(st.sets(st.integers(0, n - 1), max_size=4)) if n else set()
        nodes.append(
            Node(
                label=f"task_{n}",
                parents=tuple(sorted(parents)),
                state=draw(st.sampled_from(STATES)),
            )
        )
    return Graph(title="g", nodes=tuple(nodes))


def fan(width):
    nodes = [Node(label="first", state="succeeded")]
    nodes += [
        Node(label=f"part_{n}", parents=(0,), state="failed" if n == 7 else "succeeded")
        for n in range(width)
    ]
    nodes.append(Node(label="last", parents=tuple(range(1, width + 1)), state="skipped"))
    return Graph(title="fan", nodes=tuple(nodes))


def text_of(drawing):
    return ["".join(piece for piece, _ in row) for row in drawing.rows]


@settings(deadline=None)
@given(graphs())
def test_every_line_of_a_layout_leads_one_layer_down_and_none_is_lost(graph):
    layers = layered(graph.nodes)
    place = {v: n for n, row in enumerate(layers.rows) for v in row}
    assert sorted(place) == list(range(len(layers.up)))
    for vertex, children in enumerate(layers.down):
        for child in children:
            assert place[child] == place[vertex] + 1
            assert vertex in layers.up[child]
    for n, node in enumerate(graph.nodes):
        found = set()
        for above in layers.up[n]:
            while layers.is_bend(above):
                (above,) = layers.up[above]  # noqa: PLW2901 - a walk
            found.add(above)
        assert found == set(node.parents)


@settings(deadline=None)
@given(graphs(), st.integers(1, 5))
def test_what_stands_in_a_layer_keeps_its_order_and_its_gap(graph, gap):
    layers = layered(graph.nodes)
    widths = [3 + n % 9 for n in range(len(layers.up))]
    middle = columns(layers, widths, gap=gap)
    for row in layers.rows:
        for before, after in pairwise(row):
            end = middle[before] - widths[before] // 2 + widths[before]
            assert middle[after] - widths[after] // 2 - end >= gap
    lefts = [middle[v] - widths[v] // 2 for v in range(len(widths))]
    assert min(lefts, default=0) == 0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 9)), max_size=8))
def test_places_are_in_order_and_what_was_wanted_stands_where_it_can(pairs):
    wanted, apart = [float(w) for w, _ in pairs], [float(a) for _, a in pairs]
    found = spread(wanted, apart)
    for n in range(1, len(found)):
        assert found[n] - found[n - 1] >= apart[n] - 1e-9
    if all(b - a >= d for (a, b), d in zip(pairwise(wanted), apart[1:], strict=True)):
        assert found == pytest.approx(wanted)


def test_what_has_too_many_lines_to_untangle_keeps_its_order():
    above = [Node(label=f"a{n}") for n in range(400)]
    parents = tuple(range(399, -1, -1))
    below = [Node(label=f"b{n}", parents=parents) for n in range(400)]
    layers = layered([*above, *below])
    assert layers.rows == (tuple(range(400)), tuple(range(400, 800)))


def test_crossings_are_counted_and_untangled():
    tangled = [Node(label="a"), Node(label="b"), Node(label="c"), Node(label="x", parents=(2,))]
    tangled += [Node(label="y", parents=(1,)), Node(label="z", parents=(0,))]
    assert crossings([[0, 1, 2], [3, 4, 5]], [[5], [4], [3], [], [], []]) == 3
    layers = layered(tangled)
    assert crossings(layers.rows, layers.down) == 0


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([24, 60, 200]), st.booleans())
def test_a_drawing_keeps_to_its_width_and_names_every_task_it_has_room_for(graph, width, plain):
    drawing = draw(graph, width=width, plain=plain)
    lines = text_of(drawing)
    assert all(len(line) <= width for line in lines)
    assert sum(node.count for node in drawing.graph.nodes) == len(graph.nodes)
    if plain:
        assert all(line.isascii() for line in lines)
    if drawing.graph == graph and width == 200:
        for node in graph.nodes:
            assert sum(line.count(f" {node.label} ") for line in lines) == 1


@settings(deadline=None)
@given(graphs())
def test_tasks_drawn_as_one_have_all_the_lines_of_each_and_none_within(graph):
    depth = depths(graph.nodes)
    one = grouped(graph, [n % 2 for n in range(len(graph.nodes))])
    keys = [(depth[n], n % 2) for n in range(len(graph.nodes))]
    wanted = {
        (keys[parent], keys[child])
        for child, node in enumerate(graph.nodes)
        for parent in node.parents
    }
    assert sum(len(node.parents) for node in one.nodes) == len(wanted)
    assert all(parent < n for n, node in enumerate(one.nodes) for parent in node.parents)


def test_a_small_graph_is_drawn_with_boxes_and_lines():
    nodes = (
        Node(label="a", state="succeeded"),
        Node(label="b", parents=(0,), state="running"),
        Node(label="c", parents=(0,), state="blocked"),
        Node(label="d", parents=(1, 2), state="blocked"),
    )
    graph = Graph(title="g", nodes=nodes)
    assert text_of(draw(graph, width=40)) == [
        "    ╭─────╮",
        "    │ ✓ a │",
        "    ╰──┬──╯",
        "   ╭───┴────╮",
        "   ▼        ▼",
        "╭─────╮  ╭─────╮",
        "│ ● b │  │ ○ c │",
        "╰──┬──╯  ╰──┬──╯",
        "   ╰───┬────╯",
        "       ▼",
        "    ╭─────╮",
        "    │ ○ d │",
        "    ╰─────╯",
    ]
    assert "| + a |" in "\n".join(text_of(draw(graph, width=40, plain=True)))


def test_a_wide_layer_becomes_one_box_with_counts_and_the_worst_state():
    drawing = draw(fan(1_100), width=80)
    first, parts, last = drawing.graph.nodes
    assert (first.count, parts.count, last.count) == (1, 1_100, 1)
    assert parts.state == "failed"
    assert any("✗ part* x1,100 1,099 succeeded, 1 failed" in line for line in text_of(drawing))


def test_chains_that_are_alike_are_drawn_as_one_chain():
    nodes = [Node(label="split")]
    for n in range(40):
        for step in ("read", "map", "sort"):
            nodes.append(
                Node(label=f"{step}_{n}", parents=(0 if step == "read" else len(nodes) - 1,))
            )
    nodes.append(Node(label="join", parents=tuple(range(3, len(nodes), 3))))
    found = draw(Graph(title="g", nodes=tuple(nodes)), width=80).graph
    assert [(n.label, n.count) for n in found.nodes] == [
        ("split", 1),
        ("read*", 40),
        ("map*", 40),
        ("sort*", 40),
        ("join", 1),
    ]


def test_a_line_of_ten_thousand_and_a_layer_of_ten_thousand_are_drawn():
    deep = Graph(
        title="deep",
        nodes=tuple(
            Node(label=f"t{n}", parents=(n - 1,) if n else (), state="blocked")
            for n in range(10_000)
        ),
    )
    assert [n.count for n in in_a_row(deep).nodes] == [1, 9_998, 1]
    assert len(text_of(draw(deep, width=80))) < 30
    assert len(text_of(draw(fan(9_998), width=80))) < 30


def test_what_no_picture_can_hold_is_told_layer_by_layer():
    nodes = []
    for layer in range(70):
        for n in range(3):
            above = tuple(range((layer - 1) * 3, layer * 3)) if layer else ()
            nodes.append(Node(label=f"very_long_name_{layer}_{n}", parents=above, state="blocked"))
    lines = text_of(draw(Graph(title="g", nodes=tuple(nodes)), width=9))
    assert lines[0].startswith("laye")
    assert all(len(line) <= 9 for line in lines)


def test_names_cannot_steer_a_terminal_break_out_of_svg_or_of_dot():
    evil = 'x\x1b[2J<script>"&\\\n'
    graph = Graph(title=evil, nodes=(Node(label=evil, note=evil, title=evil, state="failed"),))
    for plain in (True, False):
        assert not re.search(r"[\x00-\x1f]", "".join(text_of(draw(graph, width=200, plain=plain))))
    drawn = svg(graph)
    root = ET.fromstring(drawn)
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "\x1b" not in drawn
    assert quoted('a"b\\l\n') == '"a\\"b\\\\l\\n"'
    assert "\x1b" not in dot(graph)


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_an_svg_is_whole_and_has_a_box_for_each_task_and_a_line_for_each_parent(graph):
    root = ET.fromstring(svg(graph, across_max=0))
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}g")) == len(graph.nodes)
    lines = root.findall(f"{space}path[@fill='none']")
    assert len(lines) == sum(len(set(node.parents)) for node in graph.nodes)


def test_dot_has_every_task_and_every_line():
    text = dot(fan(3))
    assert text.count("label=") == 5
    assert text.count("->") == 6
    assert text.startswith('digraph "fan" {')


def test_the_finest_way_that_fits_is_taken():
    graph = fan(5)
    assert collapsed(graph, fits=lambda g: len(g.nodes) <= 7) == graph
    assert len(collapsed(graph, fits=lambda g: len(g.nodes) <= 3).nodes) == 3
