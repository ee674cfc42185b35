"""`runtime apply`: job files become the definitions of their source, whole or not at all."""

from pathlib import Path
from typing import Any, Final

import click

from runtime.cli.arguments import json_option
from runtime.cli.client import Client, uses_node
from runtime.cli.show import cell, note, person, print_json
from runtime.files.load import load_texts, read_texts, source_of

_STYLES: Final = {"+": "green", "~": "yellow", "-": "red"}


@click.command()
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option("--source", help="Whose these jobs are; default: the names of the paths.")
@click.option("--adopt", is_flag=True, help="Take over jobs that belong to another source.")
@click.option("--prune", is_flag=True, help="Delete the source's jobs that the files do not hold.")
@click.option("--dry-run", is_flag=True, help="Show the diff, and change nothing.")
@json_option
@uses_node
def apply_command(
    client: Client,
    *,
    paths: tuple[Path, ...],
    source: str | None,
    adopt: bool,
    prune: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Apply job files, or folders of them, in one transaction, and show the diff.

    + is new, ~ has changed (field by field), - is deleted, which only --prune does.
    """
    texts = read_texts(paths)
    source = source or source_of(paths)
    load_texts(texts, source=source)  # what is wrong in them is told without a node
    answer = client.post(
        "apply",
        body={
            "source": source,
            "files": [{"name": name, "text": text.decode("utf-8-sig")} for name, text in texts],
            "adopt": adopt,
            "prune": prune,
            "dry_run": dry_run,
        },
    )
    if as_json:
        print_json(answer)
    else:
        _show(answer, dry_run=dry_run)


def _show(applied: dict[str, Any], *, dry_run: bool) -> None:
    changes = {one["job_id"]: one["fields"] for one in applied.get("changes") or []}
    for job_id in applied["created"]:
        _line("+", job_id)
    for job_id in applied["updated"]:
        _line("~", job_id)
        for change in changes.get(job_id, ()):
            click.echo(f"    {change['path']}: {cell(change['old'])} -> {cell(change['new'])}")
    for job_id in applied["deleted"]:
        _line("-", job_id)
    counts = [
        f"{len(applied[name])} {word}"
        for name, word in (
            ("created", "new"),
            ("updated", "changed"),
            ("deleted", "deleted"),
            ("unchanged", "unchanged"),
        )
        if applied[name]
    ]
    said = ", ".join(counts) or "no jobs"
    note(f"{said}; nothing was changed, this was a dry run" if dry_run else f"applied: {said}")


def _line(sign: str, job_id: str) -> None:
    text = f"{sign} {job_id}"
    click.echo(click.style(text, fg=_STYLES[sign]) if person() else text)
