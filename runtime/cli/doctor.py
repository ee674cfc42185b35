"""`runtime doctor`: what is well and what is not, each with how to mend it; needs no node."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import anyio
import click

from runtime.cli.arguments import json_option
from runtime.cli.checks import Check, State, worst
from runtime.cli.checks_of_database import check_database
from runtime.cli.checks_of_machine import check_data_dir, check_tasks, check_tools
from runtime.cli.checks_of_node import check_node
from runtime.cli.client import DEFAULT_URL
from runtime.cli.failures import FAILED
from runtime.cli.show import clean, person, print_json
from runtime.settings import Settings, SettingsError, load_settings

_SIGNS: Final[dict[State, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "warning": ("warning", "yellow"),
    "degraded": ("degraded", "red"),
    "wrong": ("wrong", "red"),
}


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="A file of settings.")
@click.option("--data-dir", help="Where the node keeps its data.")
@click.option("--url", help=f"Which node; default: RUNTIME_URL, else {DEFAULT_URL}.")
@json_option
def doctor_command(
    config: Path | None,
    data_dir: str | None,
    url: str | None,
    as_json: bool,  # noqa: FBT001 - click passes flags by name
) -> int:
    """Check settings, data directory, database, clock, etcd, Kafka and node; say how to mend each.

    Exit code 1 where something is wrong or degraded; warnings alone are 0.
    """
    checks = anyio.run(_examine, config, data_dir, url or os.environ.get("RUNTIME_URL"))
    state = worst(checks)
    if as_json:
        print_json({"state": state, "checks": checks})
    else:
        _show(checks)
    return FAILED if state in {"wrong", "degraded"} else 0


async def _examine(config: Path | None, data_dir: str | None, url: str | None) -> list[Check]:
    try:
        settings = load_settings(
            config=config,
            environment=os.environ,
            options={"data_dir": data_dir},
            cwd=Path.cwd(),
        )
    except SettingsError as error:
        return [
            Check(name="settings", state="wrong", said=line, mend="correct it and look again")
            for line in error.lines
        ]
    where = str(config) if config is not None else "the environment and the defaults"
    return [
        Check(name="settings", state="ok", said=f"read from {where}"),
        check_tools(),
        *check_data_dir(settings),
        check_tasks(settings),
        *await check_database(settings),
        *await _cluster(settings),
        *await check_node(
            settings, url or f"http://{_host(settings.api_host)}:{settings.api_port}"
        ),
    ]


async def _cluster(settings: Settings) -> list[Check]:
    if not settings.clustered:
        return []
    try:
        from runtime.cli.checks_of_cluster import check_cluster  # noqa: PLC0415 - of an extra
    except ModuleNotFoundError as error:
        said = f"the clients of etcd and Kafka are not installed ({error.name})"
        mend = "pip install 'tickwright[cluster]'"
        return [Check(name="cluster", state="wrong", said=said, mend=mend)]
    return await check_cluster(settings)


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _show(checks: Iterable[Check]) -> None:
    for check in checks:
        word, colour = _SIGNS[check.state]
        sign = click.style(word.ljust(8), fg=colour) if person() else word.ljust(8)
        click.echo(f"{sign}  {check.name:12}  {clean(check.said)}")
        if check.mend:
            click.echo(f"{'':24}-> {clean(check.mend)}")
