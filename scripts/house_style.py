"""Holds the tree to what no linter knows: short files, honest names, nothing left over."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES_MAX = 500
FOLDERS = ("protocols", "actors", "runtime", "scripts", "tests", "docs", "config")
ENDINGS = {".py", ".sql", ".md", ".yaml", ""}
LEFT_OVER = re.compile(r"\b(?:TODO|FIXME|XXX|raise NotImplementedError)\b")
NAMELESS = re.compile(r"^(?:utils?|misc|common)(?:\.py)?$")


def main() -> int:
    wrong = [fault for path in files() for fault in faults(path)]
    for fault in wrong:
        print(fault)
    return 1 if wrong else 0


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            hidden = any(part.startswith((".", "__pycache__")) for part in parts)
            if path.is_file() and path.suffix in ENDINGS and not hidden:
                yield path


def faults(path: Path) -> Iterator[str]:
    name = path.relative_to(ROOT)
    if any(NAMELESS.fullmatch(part) for part in name.parts):
        yield f"{name}: a file is named for what is inside"
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.suffix == ".py" and len(lines) > LINES_MAX:
        yield f"{name}: {len(lines)} lines; no file has over {LINES_MAX}"
    if path == Path(__file__).resolve() or path.suffix == ".md":
        return
    for number, line in enumerate(lines, 1):
        if LEFT_OVER.search(line):
            yield f"{name}:{number}: {line.strip()}"


if __name__ == "__main__":
    sys.exit(main())
