"""Arrays into the store and out of it: against pickling them into Redis, and against a bare socket."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import psutil

from .common import Bench, Figure, alone
from .transfer import Place, Process, opened_store

#: Times the array that is touched beforehand: what the peer takes at both ends, in Redis and in its file.
TOUCHED = 8
SIZES = ((100_000_000, "100 MB", 5), (1_000_000_000, "1 GB", 3))


def measure(bench: Bench | None = None) -> list[Figure]:
    """Measure the way of an input: copied, signed, sent, fetched, checked, unpickled; each time other bytes.

    Before each, memory is touched: on a virtual machine that gives free memory back to its host,
    the first touch of a page costs more than all else, and would fall on whoever comes first.
    """
    figures = []
    with opened_store() as place:
        for size, name, repeat in SIZES:
            figures += _size(place, size, name, repeat)
    return figures


def rounds(
    place: Place, size: int, repeat: int, ways: Sequence[str]
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Give seconds out and back, and the peaks of memory of both processes, for each of `ways`.

    ``again`` is the way of an array that the store has already, out alone.
    """
    writer, reader = Process(place), Process(place)
    seconds: dict[str, list[float]] = {way: [] for way in (*ways, "again")}
    peaks: dict[str, list[int]] = {way: [] for way in ways}
    try:
        for _ in range(repeat):
            for way in ways:
                writer("make", size)
                reader("make", 0)
                writer("clean", 0)
                writer("touch", min(TOUCHED * size, psutil.virtual_memory().available // 2))
                out, out_peak = writer(f"{way}_out", size)
                back, back_peak = reader(f"{way}_back", size)
                if writer("last", 0) != reader("last", 0):
                    raise RuntimeError("another array came back")
                seconds[way].append(out + back)
                peaks[way] += [out_peak, back_peak]
                if way == "ours":
                    writer("touch", size)
                    seconds["again"].append(writer("ours_out", size)[0])
    finally:
        writer.close()
        reader.close()
    return seconds, peaks


def _size(place: Place, size: int, name: str, repeat: int) -> list[Figure]:
    seconds, peaks = rounds(place, size, repeat, ("ours", "naive", "bare"))
    naive = "`redis.set(cloudpickle.dumps(x))`, get, loads"
    if size > 500_000_000:
        naive += ", in values of 8 MiB"
    mine, theirs = (f"{max(peaks[way]) / size:.2f}" for way in ("ours", "naive"))
    note = (
        "ours is a frozen copy, signed and checked; the peer's is neither. One Redis, one unix socket, a "
        f"process at each end. Memory at the peak beside the array, in the worse of both: {mine} of it here, "
        f"{theirs} with the peer"
    )
    limit = "no store, no pickle, no digest: copied, sent to a process that keeps it, and fetched from there"
    return [
        Figure(f"{name} array, out and back", naive, seconds["ours"], seconds["naive"], note),
        Figure(f"The same, {name}", "a bare unix socket", seconds["ours"], seconds["bare"], limit),
        Figure(
            f"The same array as an input again, {name}",
            naive,
            seconds["again"],
            seconds["naive"],
            "copied and digested, for that is how it is known; not sent",
        ),
    ]


if __name__ == "__main__":
    sys.exit(alone(measure, cluster=False))
