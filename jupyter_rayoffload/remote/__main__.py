"""The entrypoint of a Ray job; runs one job of ours.

``python -m PACKAGE JOB_ID ATTEMPT`` runs that job, ``python -m PACKAGE --standby ID`` one that it is handed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Beside this package there is a folder with the distributions that an image may lack.
SITE = Path(__file__).resolve().parent.parent / "rayoffload_site"


def main(arguments: list[str]) -> int:
    """Run the job that the command line names.

    Parameters
    ----------
    arguments : list of str
        Id of the job, number of the attempt; or ``--standby`` and the standby's id.

    Returns
    -------
    int
        Exit code: 0 success, 1 the cell's own exception, 3 something that is not the cell's, 143 cancelled;
        of a program its own.
    """
    standby = len(arguments) == 2 and arguments[0] == "--standby"
    if not standby and (len(arguments) != 2 or not arguments[1].isdigit()):
        print(f"usage: python -m {__package__} JOB_ID ATTEMPT | --standby ID", file=sys.stderr)
        return 2
    if SITE.is_dir():
        sys.path.append(str(SITE))  # at the end: what the image has wins
    from .launch import run_job, stand_by  # need what is in SITE

    return stand_by(arguments[1]) if standby else run_job(arguments[0], int(arguments[1]))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: all that needs an orderly end has had it
