"""The image of the Dockerfile, by hand: its environment and its user, on a root file system that
can't be written. What a container would have besides is not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.service import end
from tests.required import lacking

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
DATA = "/srv/data"
"""Where a process finds the folder that is the image's volume."""
_CHECKOUT = "/srv/ttcl"
# Everything that is mounted is gone with the process's own mount namespace. The checkout and this
# Python may stand where only root may go; a folder above them is then laid over.
_CONTAINED = """
set -e
mount -t tmpfs tmpfs /srv
mkdir /srv/ttcl /srv/data /srv/python
mount --bind "$1" /srv/ttcl
mount --bind "$2" /srv/data
mount --bind "$4" /srv/python
chown "$3" /srv/data
if ! setpriv --reuid "$3" --clear-groups test -x "$4"; then
    mount -t tmpfs -o mode=755 tmpfs "/$(echo "$4" | cut -d / -f 2)"
    mkdir -p "$4"
    mount --bind /srv/python "$4"
fi
mount -o remount,bind,ro /srv/ttcl
mount -o remount,ro /srv
mount -o remount,bind,ro /
cd /srv
user=$3
shift 4
exec setpriv --reuid "$user" --regid "$user" --clear-groups --no-new-privs \
    --bounding-set=-all --inh-caps=-all -- "$@"
"""


def environment() -> dict[str, str]:
    """`ENV` of the image that the Dockerfile ends with."""
    last = re.split(r"^FROM .*$", DOCKERFILE.read_text(), flags=re.M)[-1]
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)$", last, re.M)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def user() -> str:
    (number,) = re.findall(r"^USER (\d+)$", DOCKERFILE.read_text(), re.M)
    return str(number)


@contextmanager
def container(
    command: Sequence[str], variables: Mapping[str, str], data: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` (it begins with ttcl) with the image's environment and `variables`, and nothing of
    this machine's; `data` is its volume."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("setpriv") is None:
        lacking("REQUIRE_ROOT", "only Linux's root can make a root file system read-only")
    program, *rest = command
    assert program == "ttcl"
    given = {**environment(), "PATH": os.defpath, **variables}
    # In the image the package is installed; here it is the checkout, seen in another place.
    given |= {"PYTHONPATH": _CHECKOUT, "PYTHONDONTWRITEBYTECODE": "1"}
    python = sys.executable.replace(str(ROOT), _CHECKOUT)
    contained = ["unshare", "--mount", "sh", "-c", _CONTAINED, "sh"]
    contained += [str(ROOT), str(data), user(), sys.base_prefix]
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [*contained, python, "-m", "app.cli", *rest], env=given, stdout=sink, stderr=sink
        )
    try:
        yield process
    finally:
        end(process)
