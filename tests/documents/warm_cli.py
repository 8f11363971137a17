"""`ttcl` without the seconds that its imports take: a process that has them forks for each.

`python -m tests.documents.warm_cli SOCKET` serves; `write_command` makes the `ttcl` that asks it.
The command runs in a process of its own, with the caller's arguments, folder, environment and
streams.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

_CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as here:
    here.connect({address!r})
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(here, [len(told).to_bytes(4)], [0, 1, 2])
    here.sendall(told)
    sys.exit(int.from_bytes(here.recv(1)))
"""


def write_command(folder: Path, address: Path) -> None:
    """`folder`/ttcl, which has a server at this Unix socket do the work."""
    command = folder / "ttcl"
    command.write_text(_CLIENT.format(python=sys.executable, address=str(address)))
    command.chmod(0o755)


def serve(address: str) -> None:
    """Until the process is ended."""
    import app.wiring.factories  # noqa: F401 - what most commands need
    from app.cli import main

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    while True:
        client, _ = listener.accept()
        with client:
            length, streams, _, _ = socket.recv_fds(client, 4, 3)
            told = client.makefile("rb").read(int.from_bytes(length))
            arguments, folder, environment = json.loads(told)
            child = os.fork()
            if child == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                sys.argv = ["ttcl", *arguments]
                main()
                sys.exit()
            for stream in streams:
                os.close(stream)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            client.sendall(bytes([code & 255]))


if __name__ == "__main__":
    serve(sys.argv[1])
