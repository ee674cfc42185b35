"""The verbs of `scripts/services`: progress on stderr, and on stdout only what was asked for."""

import argparse
import json
import shlex
import signal
import sys
import time
from pathlib import Path

from runtime.postgres.embedded import EmbeddedPostgresError, prepare_data_dir
from scripts.serving import sets
from scripts.serving.processes import MissingError, ServiceError

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("restart", "kill", "pause", "resume")


def main() -> int:
    # As Ctrl-C does: what prepares a server ends with us, and what was half made goes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options = parser().parse_args()
    try:
        return run(options)
    except MissingError as error:
        print(f"services: {error}", file=sys.stderr)
        return 3
    except (ServiceError, EmbeddedPostgresError) as error:
        print(f"services: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"services: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def parser() -> argparse.ArgumentParser:
    outer = argparse.ArgumentParser(prog="scripts/services", description=__doc__)
    verbs = outer.add_subparsers(dest="verb", required=True, metavar="VERB")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--dir",
        type=Path,
        default=ROOT / "data" / "services",
        help="the folder of this set of servers (default: data/services of the clone)",
    )
    up = verbs.add_parser("up", parents=[place], help="start, and print the settings to use")
    up.add_argument("kinds", nargs="*", metavar="KIND", help="postgres, etcd, kafka; or all")
    for kind, counts in sets.COUNTS.items():
        up.add_argument(
            f"--{kind}", type=int, choices=counts, help=f"how many of {kind} in a new set"
        )
    down = verbs.add_parser("down", parents=[place], help="end every server of the set")
    down.add_argument("--purge", action="store_true", help="and remove its data")
    status = verbs.add_parser("status", parents=[place], help="which server is how")
    status.add_argument("--json", action="store_true", help="for programs")
    verbs.add_parser("promote", parents=[place], help="make the PostgreSQL standby the primary")
    for verb in VERBS:
        verbs.add_parser(verb, parents=[place]).add_argument("name", metavar="NAME")
    return outer


def run(options: argparse.Namespace) -> int:
    if options.verb == "up":
        unknown = set(options.kinds) - set(sets.COUNTS)
        if unknown:
            raise ServiceError(f"no such kind: {', '.join(sorted(unknown))}")
        counts = {kind: getattr(options, kind) for kind in options.kinds or sets.COUNTS}
        held = sets.Set(prepare_data_dir(options.dir))
        for name, value in held.up(counts):
            print(f"export {name}={shlex.quote(value)}")
        return 0
    held = sets.Set(options.dir.expanduser().resolve())
    if options.verb == "down":
        held.down(purge=options.purge)
    elif options.verb == "status":
        show(held.status(), as_json=options.json)
    elif options.verb == "promote":
        print(f"services: {held.promote()} is the primary", file=sys.stderr)
    else:
        began_s = time.monotonic()
        getattr(held, options.verb)(options.name)
        print(
            f"services: {options.verb} {options.name}: done ({time.monotonic() - began_s:.1f} s)",
            file=sys.stderr,
        )
    return 0


def show(rows: list[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        pid = row["pid"] or "-"
        print(f"{row['name']:<12}{row['state']:<9}{pid!s:<9}{row['port']:<7}{row['log']}")


if __name__ == "__main__":
    sys.exit(main())
