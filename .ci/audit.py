"""Known flaws of the pinned packages, by pip-audit: `python .ci/audit.py FILE...` for files of pins.

Status 0: every package was looked up and has no known flaw. 1: some have; they are listed. 3: not all could be looked
up, so nothing is shown. pip-audit itself ends with 0 where an index knows none of the packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

UNKNOWN = 3


def run(files: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """pip-audit on files of pins, without installing anything."""
    named = [part for file in files for part in ("-r", file)]
    command = [sys.executable, "-m", "pip_audit", *named, "--no-deps", "--disable-pip", "-f", "json"]
    return subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True)


def main(files: Sequence[str], look: Callable[[Sequence[str]], Any] = run) -> int:
    """Look the files up and say what was found."""
    done = look(files)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"The advisories could not be read, so nothing is known: try again with a network. ({last[:200]})")
        return UNKNOWN
    flawed = {f"{p['name']} {p['version']}": p["vulns"] for p in packages if p.get("vulns")}
    for name, flaws in flawed.items():
        for flaw in flaws:
            print(f"{name}: {flaw['id']}, mended in {', '.join(flaw.get('fix_versions') or ['no version'])}")
    if unseen := [p["name"] for p in packages if "vulns" not in p]:
        print(
            f"{len(unseen)} of {len(packages)} packages could not be looked up, such as {unseen[0]}: try again later."
        )
        return UNKNOWN
    if not packages:
        print("No package was looked up: give files of pins, such as constraints.txt.")
        return UNKNOWN
    print(f"{len(packages)} packages looked up, {len(flawed)} with known flaws.")
    return int(bool(flawed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["constraints.txt"]))
