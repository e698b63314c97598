"""Write the jar that Nextflow's launcher starts: a manifest that names the jars in lib/ beside it."""

import sys
import zipfile
from pathlib import Path


def wrap(line: str) -> str:
    """Break a manifest line into lines of at most 72 bytes; a continuation starts with a space."""
    parts = [line[:70]] + [" " + line[i : i + 69] for i in range(70, len(line), 69)]
    return "\r\n".join(parts) + "\r\n"


def main(jar: Path) -> None:
    """Write `jar` for the jars in the folder lib beside it."""
    jars = " ".join(f"lib/{path.name}" for path in sorted((jar.parent / "lib").glob("*.jar")))
    lines = ["Manifest-Version: 1.0", "Main-Class: nextflow.cli.Launcher", f"Class-Path: {jars}"]
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "".join(map(wrap, lines)) + "\r\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
