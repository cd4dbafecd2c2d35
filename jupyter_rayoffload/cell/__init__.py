"""What a cell reads and writes, and what those names need: pure, and nothing of the cell is executed.

::

    scope < flow < walk < analysis    the cell's text
    uses, magics                      parts of the walk
    reach                             from the names to all that their values need
    mutators                          which values may have changed afterwards
"""

from .analysis import Analysis, analyze
from .mutators import changed_in_place, pending_writes, watched
from .reach import Reads, closure, code_reads

__all__ = [
    "Analysis",
    "Reads",
    "analyze",
    "changed_in_place",
    "closure",
    "code_reads",
    "pending_writes",
    "watched",
]
