"""`runtime migrate`: the schema of a database that is not the node's own."""

import os
from pathlib import Path

import anyio
import click

from runtime.cli.show import note, say
from runtime.database import migrate_database
from runtime.postgres.hosts import Hosts
from runtime.settings import load_settings


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A file of settings.")
def migrate_command(config: Path | None) -> None:
    """Bring the database's schema up to this build, as `database.owner_url`, else `database.url`.

    It needs no node. A node with a PostgreSQL of its own does this at its start.
    """
    settings = load_settings(config=config, environment=os.environ, options={}, cwd=Path.cwd())
    url = settings.database_owner_url or settings.database_url
    if url is None:
        note(
            "nothing to do: without `database.url` a node has a PostgreSQL of its own, "
            "and migrates it at start"
        )
        return
    done = anyio.run(migrate_database, Hosts({"dsn": url}))
    for name in done:
        say(f"applied {name}")
    say("the schema is up to date")
