"""Pictures of DAGs on stdout: in the terminal's own width, as SVG, or for Graphviz."""

import os
import shutil
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

import click

from runtime.cli.show import console, person
from runtime.pictures.canvas import Piece
from runtime.pictures.dot import dot
from runtime.pictures.graph import Graph
from runtime.pictures.signs import SIGNS
from runtime.pictures.svg import ACROSS_MAX, svg
from runtime.pictures.terminal import Drawing, draw

PIPE_WIDTH: Final = 120
"""Columns that a picture in a pipe may take; COLUMNS says otherwise."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Wish(NamedTuple):
    """Which picture is wanted."""

    dot: bool
    svg: bool
    full: bool
    plain: bool

    @property
    def file(self) -> bool:
        """Whether the picture is all that is to be written."""
        return self.dot or self.svg


def picture_options(function: Function) -> Function:
    """`--dot`, `--svg`, `--full` and `--plain`, handed on as `wish`."""

    def command(*args: Any, **kwargs: Any) -> Any:
        wish = Wish(*(kwargs.pop(name) for name in Wish._fields))
        if wish.dot and wish.svg:
            raise click.UsageError("give --dot or --svg, not both")
        return function(*args, wish=wish, **kwargs)

    command.__doc__ = function.__doc__
    command.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("--plain", is_flag=True, help="Draw in ASCII, without colours."),
        click.option("--full", is_flag=True, help="In SVG: a box for each task, however many."),
        click.option("--svg", is_flag=True, help="Write the picture as SVG."),
        click.option("--dot", is_flag=True, help="Write the graph for Graphviz."),
    ):
        command = option(command)
    return command  # type: ignore[return-value]


def write_picture(graph: Graph, wish: Wish) -> None:
    """Write the picture that is wanted on stdout."""
    if wish.dot:
        click.echo(dot(graph), nl=False)
    elif wish.svg:
        click.echo(svg(graph, across_max=0 if wish.full else ACROSS_MAX), nl=False)
    else:
        show_drawing(drawn(graph, plain=wish.plain))


def drawn(graph: Graph, *, plain: bool = False) -> Drawing:
    """The graph as wide as there is room; ASCII where nobody is known to read it."""
    return draw(graph, width=width(), plain=plain or not person())


def width() -> int:
    """Columns there are."""
    return max(20, shutil.get_terminal_size((PIPE_WIDTH, 24)).columns)


def show_drawing(drawing: Drawing) -> None:
    """Print a drawing, with the signs that it uses."""
    coloured = person() and "NO_COLOR" not in os.environ
    for row in drawing.rows:
        if coloured:
            console().print(rich_line(row), soft_wrap=True)
        else:
            click.echo("".join(piece for piece, _ in row).rstrip())
    key = legend(drawing)
    if key:
        click.echo(f"\n{key}")


def rich_line(row: list[Piece]) -> Any:
    """A row as rich has it."""
    from rich.text import Text  # noqa: PLC0415 - only a person waits for rich

    return Text.assemble(*((piece, style) for piece, style in row), no_wrap=True)


def legend(drawing: Drawing) -> str:
    """The signs of the states that occur."""
    text = "".join(piece for row in drawing.rows for piece, _ in row)
    states = {s for node in drawing.graph.nodes for s in (node.state, *node.states) if s}
    plain = text.isascii()
    return "  ".join(
        f"{sign.ascii if plain else sign.text} {state}"
        for state, sign in SIGNS.items()
        if state in states
    )
