"""``python -m tests.kubernetes.bed``: a bed by hand."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import binaries, containers, inside, namespaces, requirements, supervisor
from .handle import Bed
from .places import BedError


def main() -> None:
    """Do what the command line says."""
    arguments = _parser().parse_args()
    try:
        _COMMANDS[arguments.command](arguments)
    except BedError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.kubernetes.bed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="up | down | build")
    up = commands.add_parser("up", help="start a bed that stays until `down`")
    up.add_argument("--simulated", action="store_true", help="no node that runs pods")
    commands.add_parser("down", help="remove beds that stay, and what killed ones have left")
    commands.add_parser("build", help="make all that a bed needs, and start none")
    supervise = commands.add_parser("supervise")  # these are called by the others
    supervise.add_argument("--watch", type=int, default=0)
    supervise.add_argument("--real-nodes", action="store_true")
    first = commands.add_parser("inside")
    first.add_argument("number", type=int)
    first.add_argument("--real-nodes", action="store_true")
    commands.add_parser("import").add_argument("work", type=Path)
    return parser


def _up(arguments: argparse.Namespace) -> None:
    bed = Bed.found()
    if bed is None:
        bed = Bed.start(real_nodes=not arguments.simulated, stay=True)
        print(f"the bed is up after {bed.seconds:.1f} s; logs are in {bed.place.log}")
    print(f"export KUBECONFIG={bed.kubeconfig}")


def _down(_: argparse.Namespace) -> None:
    while bed := Bed.found():
        bed.close()
    supervisor.sweep_all()


def _build(_: argparse.Namespace) -> None:
    requirements.provide()
    binaries.build()
    containers.make_store()


def _import(arguments: argparse.Namespace) -> None:
    namespaces.mount_own()
    containers.import_lasting(arguments.work)


_COMMANDS = {
    "up": _up,
    "down": _down,
    "build": _build,
    "supervise": lambda a: supervisor.supervise(a.watch, a.real_nodes),
    "inside": lambda a: inside.main(a.number, a.real_nodes),
    "import": _import,
}

if __name__ == "__main__":
    main()
