"""``python -m PACKAGE JOB_ID ATTEMPT``: the entrypoint of a Ray job; runs one job of ours."""

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
        Id of the job, number of the attempt.

    Returns
    -------
    int
        Exit code: 0 success, 1 the cell's own exception, 3 something that is not the cell's, 143 cancelled;
        of a program its own.
    """
    if len(arguments) != 2 or not arguments[1].isdigit():
        print(f"usage: python -m {__package__} JOB_ID ATTEMPT", file=sys.stderr)
        return 2
    if SITE.is_dir():
        sys.path.append(str(SITE))  # at the end: what the image has wins
    from .launch import run_job  # needs what is in SITE

    return run_job(arguments[0], int(arguments[1]))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # at once: all that needs an orderly end has had it
