"""A graph in the language of Graphviz (https://graphviz.org/doc/info/lang.html), task by task."""

from runtime.pictures.graph import Graph, Node
from runtime.pictures.signs import sign_of


def dot(graph: Graph) -> str:
    """The whole graph; nothing is drawn together, since Graphviz has room."""
    lines = [
        f"digraph {quoted(graph.title)} {{",
        "  rankdir=TB;",
        '  node [shape=box, style="rounded,filled", fontname="Helvetica"];',
    ]
    lines += [f"  n{n} [{_attributes(node)}];" for n, node in enumerate(graph.nodes)]
    for child, node in enumerate(graph.nodes):
        for parent in dict.fromkeys(node.parents):
            critical = node.critical and graph.nodes[parent].critical
            how = ' [color="#d97706", penwidth=2]' if critical else ""
            lines.append(f"  n{parent} -> n{child}{how};")
    return "\n".join([*lines, "}", ""])


def quoted(text: str) -> str:
    """A double-quoted ID; a backslash is doubled, since with what follows it may mean more."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return '"' + "".join(c if c.isprintable() else " " for c in escaped) + '"'


def _attributes(node: Node) -> str:
    sign = sign_of(node.state)
    label = f"{sign.text} {node.label}".strip()
    if node.note:
        label += f"\n{node.note}"
    parts = [
        f"label={quoted(label)}",
        f"tooltip={quoted(node.title or node.label)}",
        f'fillcolor="{sign.fill}"',
        f'color="{"#d97706" if node.critical and node.state else sign.edge}"',
    ]
    if node.apart:
        parts.append('style="rounded,filled,dashed"')
    return ", ".join(parts)
