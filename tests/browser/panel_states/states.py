"""Records of every state of a panel, as a job passes through them: for screenshots and for tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from jupyter_rayoffload.models import (
    Batch,
    ClusterInfo,
    ClusterPhase,
    FailedItem,
    Failure,
    FileInfo,
    ItemCounts,
    JobOptions,
    JobRecord,
    JobSpec,
    Phase,
    Resources,
    Step,
    Value,
    ValueState,
)

#: When all of it happens: a Sunday, in UTC.
NOW = 1_719_757_772.0

GIB = 2**30
DF = Value("df", "DataFrame 1,000,000 × 12", 96_000_000)
PARAMS = Value("params", "dict, 4 keys", 312)
GREEN, CYAN, YELLOW, RED, BOLD, OFF = "\x1b[32m", "\x1b[96m", "\x1b[93m", "\x1b[31m", "\x1b[1m", "\x1b[0m"


@dataclass
class State:
    """One state: a caption, the record, and what is shown beside it."""

    caption: str
    record: JobRecord
    log: str = ""
    outputs: list[dict[str, Any]] = field(default_factory=list)
    gone: bool = False
    open: bool = False


def _spec(label: str = "fit", **more: Any) -> JobSpec:
    options = JobOptions(resources=Resources(gpus=1))
    return JobSpec(**{"id": f"{label}-3f9a1c", "label": label, "created": NOW, "options": options, **more})


def _steps(*durations: float | str, end: float, current: bool = False) -> dict[str, Step]:
    """Steps one after the other; text instead of a duration is a note."""
    names = ("cluster", "workspace", "inputs", "queued", "running")
    begin = end - sum(d for d in durations if not isinstance(d, str))
    steps = {}
    for i, (name, duration) in enumerate(zip(names, durations, strict=False)):
        note, seconds = (duration, 0.0) if isinstance(duration, str) else ("", duration)
        open_ = current and i == len(durations) - 1
        steps[name] = Step(begin, None if open_ else begin + seconds, note)
        begin += seconds
    return steps


def _with(value: Value, state: ValueState, **more: Any) -> Value:
    return value.replace(state=state, **more)


SENT = (_with(DF, ValueState.REUSED), _with(PARAMS, ValueState.SENT))
EXPECTED = ("model", "history")
LANDED = (
    Value("model", "Model", 41_000_000, ValueState.LANDED),
    Value("history", "list, 100 items", 3_400, ValueState.LANDED),
)


def _epochs(first: int, last: int) -> str:
    """Give the lines of some epochs; every fourth is the best so far."""
    best = f"  {GREEN}best{OFF}"
    return "".join(
        f"epoch {n:>3}  loss {0.2 + 0.7 / (n + 1):.4f}  validation {0.22 + 0.7 / (n + 1):.4f}"
        f"{best if n % 4 == 2 else ''}\n"
        for n in range(first, last)
    )


HEAD = f"""{CYAN}forecast{OFF} 1,000,000 rows, 12 columns, device {BOLD}cuda:0{OFF}
{YELLOW}WARNING{OFF}  214 rows have no price: filled with the median of their store
"""
LOG_RUNNING = (
    _epochs(0, 58)
    + HEAD
    + _epochs(58, 64)
    + "fit:  61%|██████████████▋         | 61/100 [01:22<00:52,  1.35s/it, loss=0.246]\r"
    + "fit:  62%|██████████████▉         | 62/100 [01:23<00:51,  1.35s/it, loss=0.244]"
)
LOG_DONE = (
    HEAD
    + _epochs(0, 102)
    + "fit: 100%|████████████████████████| 100/100 [02:15<00:00,  1.35s/it, loss=0.231]\n"
)
LOG_KILLED = (
    HEAD
    + _epochs(0, 74)
    + "fit:  71%|█████████████████       | 71/100 [02:58<01:12,  2.51s/it, loss=0.239]\n"
    + f"{RED}Killed: out of memory (exit code 137){OFF}\n"
)

TRACEBACK = (
    f"{RED}---------------------------------------------------------------------------{OFF}",
    f"{RED}ValueError{OFF}                                Traceback (most recent call last)",
    f"""Cell {GREEN}In[7], line 7{OFF}
      5 model, history = Model(params), []
      6 for epoch in tqdm(range(100), desc="fit"):
{GREEN}----> 7{OFF}     history.append(model.step(df))
      8 model
""",
    f"""File {GREEN}forecast.py:41{OFF}, in {CYAN}Model.step{OFF}(self, frame)
     39 def step(self, frame):
     40     x, y = self.split(frame)
{GREEN}---> 41{OFF}     self.check(y)
     42     return self.update(x, y)
""",
    f"{RED}ValueError{OFF}: 3 rows of 'units' are NaN",
)

FIGURE = """<svg xmlns="http://www.w3.org/2000/svg" width="240" height="60">
<rect width="240" height="60" fill="#fff"/>
<polyline points="5,5 50,30 100,42 150,48 235,52" fill="none" stroke="#1976d2" stroke-width="2"/></svg>"""
TABLE = """<div><style scoped>th {color: red}</style><script>document.title = 'ran'</script>
<table border="1" class="dataframe"><thead>
<tr style="text-align: right;"><th></th><th>store</th><th>units</th></tr>
</thead><tbody><tr><th>0</th><td>217</td><td>31</td></tr>
<tr><th>1</th><td>305</td><td>12</td></tr></tbody></table>
<img src="x" onerror="document.title = 'ran'"><p>2 rows × 2 columns</p></div>"""
OUTPUTS = [
    {
        "output_type": "display_data",
        "data": {"image/svg+xml": FIGURE, "text/plain": "<Figure>"},
        "metadata": {},
    },
    {
        "output_type": "display_data",
        "data": {"text/html": TABLE, "text/plain": "   store  units"},
        "metadata": {},
    },
    {"output_type": "execute_result", "data": {"text/plain": "Model(loss=0.231)"}, "metadata": {}},
]


def states(now: float = NOW) -> list[State]:
    """Give every state in the order of a job's life."""
    packaging = JobRecord(
        _spec(left_behind=(".env", "keys/id_ed25519"), expected=EXPECTED),
        Phase.PACKAGING,
        reason="Packing the workspace: 214 of 1,021 files, 3.2 MB",
        steps={"cluster": Step(now - 0.3, now - 0.2), "workspace": Step(now - 0.3)},
        started=now - 0.3,
        inputs=(_with(DF, ValueState.TO_SEND), _with(PARAMS, ValueState.TO_SEND)),
    )
    starting = JobRecord(
        _spec(),
        Phase.STARTING_CLUSTER,
        reason="Waiting for 1 GPU: no node has one free",
        detail=f"Cluster default, profile gpu, asked {{since:{now - 58:.0f}}} ago. "
        "The job starts by itself when a GPU is free",
        event="14:27:31 FailedScheduling 0/6 nodes are available: 6 Insufficient nvidia.com/gpu",
        steps={"cluster": Step(now - 72), "workspace": Step(now - 72, now - 71.6)},
        started=now - 72,
    )
    uploading = JobRecord(
        _spec(),
        Phase.UPLOADING,
        dashboard="https://example.org/dashboard/",
        reason="Sending `df`: 61 of 96 MB",
        progress=(61e6, 96e6),
        steps=_steps(0.1, 0.4, 0.1, end=now, current=True),
        started=now - 0.6,
        inputs=(_with(DF, ValueState.TO_SEND), _with(PARAMS, ValueState.SENT)),
    )
    running = JobRecord(
        _spec(expected=EXPECTED),
        Phase.RUNNING,
        cluster="default",
        dashboard="https://example.org/dashboard/",
        steps=_steps(0.1, 0.4, 0.2, 0.9, 87, end=now, current=True),
        started=now - 89,
        inputs=SENT,
        lines=67,
        attempt=1,
    )
    succeeded = JobRecord(
        _spec(expected=EXPECTED),
        Phase.SUCCEEDED,
        cluster="default",
        steps=_steps(0.1, 0.4, 0.2, 0.9, 137, end=now),
        started=now - 139,
        ended=now,
        inputs=SENT,
        outputs=LANDED,
        files=(
            FileInfo("out/forecast.csv", 14_600, "fetched"),
            FileInfo("out/model.pt", 41_000_000, "there"),
        ),
        lines=105,
        attempt=1,
    )
    broken = {"workspace": "reused"}
    failed = succeeded.replace(
        phase=Phase.FAILED,
        steps=_steps(0.1, broken["workspace"], 0.2, 0.9, 2.9, end=now),
        started=now - 4.1,
        outputs=(),
        files=(),
        lines=2,
        failure=Failure(ename="ValueError", evalue="3 rows of 'units' are NaN", traceback=TRACEBACK, line=7),
    )
    memory = JobOptions(resources=Resources(gpus=1, memory=32 * GIB))
    killed = succeeded.replace(
        spec=_spec(options=memory),
        phase=Phase.FAILED,
        steps=_steps(0.1, broken["workspace"], 0.2, 0.9, 181, end=now),
        started=now - 182,
        outputs=(),
        files=(),
        lines=78,
        failure=Failure(
            reason="OutOfMemory",
            message="The job needed more memory than its node has, and the node ended it",
            hint=f"31.6 of 32 GiB were in use at {{at:{now - 2:.0f}}}; 64 GiB fit in your quota",
        ),
    )
    cancelled = succeeded.replace(
        phase=Phase.CANCELLED, started=now - 68, reason="Cancelled by you", outputs=(), files=(), lines=52
    )
    lost = succeeded.replace(
        phase=Phase.LOST,
        steps=_steps(0.1, 0.4, 0.2, 0.9, 122, end=now),
        started=now - 124,
        outputs=(),
        files=(),
        lines=91,
        last_seen=now - 15,
        failure=Failure(
            reason="JobLost",
            message="The cluster’s head died, and the job with it",
            hint="Its inputs and 91 lines of log are kept. "
            "Rerun starts it again from the same inputs, on a new head",
        ),
    )
    rebound = "the name was rebound in the notebook while the job ran"
    missed = succeeded.replace(
        spec=_spec("load"),
        started=now - 38,
        outputs=(
            _with(DF, ValueState.NOT_LANDED, reason=rebound),
            Value("stores", "list, 1,000 items", 8_000, ValueState.LANDED),
            Value("source", "TextIOWrapper", None, ValueState.CANNOT_TRAVEL, "an open file"),
        ),
        files=(),
        lines=12,
    )
    chained = JobRecord(
        _spec("evaluate", expected=("report",)),
        Phase.PENDING,
        reason=f"Waits for `model` from job fit, which has been running for {{since:{now - 89:.0f}}}",
        steps=_steps(0.1, "reused", 24, end=now, current=True),
        started=now - 24,
        inputs=(
            Value("holdout", "DataFrame 120,000 × 12", 11_500_000, ValueState.SENT),
            Value("model", state=ValueState.WAITS, job="fit"),
        ),
    )
    items = ItemCounts(1000, 612, 8, 4, first=tuple(_missing_sales(i) for i in (217, 305, 411, 508, 611)))
    batch = JobRecord(
        _spec("score", expected=("forecast",), batch=Batch("store", 1000)),
        Phase.RUNNING,
        cluster="default",
        steps=_steps(0.1, "reused", 0.1, 1.1, 112, end=now, current=True),
        started=now - 115,
        last_seen=now,
        inputs=(
            Value("store", "list, 1,000 items", 8_000, ValueState.SENT),
            Value("model", "Model", 41_000_000, ValueState.REUSED),
        ),
        attempt=1,
        items=items,
    )
    ended_batch = batch.replace(
        phase=Phase.FAILED,
        ended=now,
        steps=_steps(0.1, "reused", 0.1, 1.1, 112, end=now),
        items=items.replace(succeeded=992, running=0),
        failure=Failure(
            message="8 of 1,000 items failed; the error is that of item 217: store=217",
            ename="ValueError",
            evalue="no sales before 2023-04-01",
            traceback=(f"{RED}ValueError{OFF}: no sales before 2023-04-01",),
        ),
    )
    return [
        State("1 Packaging", packaging),
        State("2 Starting the cluster", starting),
        State("3 Uploading", uploading),
        State("4 Running", running, LOG_RUNNING),
        State("6 Succeeded", succeeded, LOG_DONE, OUTPUTS),
        State("7 Succeeded, opened", succeeded, LOG_DONE, open=True),
        State("8 Failed: the cell’s own exception", failed, "a\nb"),
        State("9 Failed: for a reason outside the cell", killed, LOG_KILLED),
        State("10 Cancelled", cancelled, HEAD + _epochs(0, 50)),
        State("11 Lost", lost, HEAD + _epochs(0, 89)),
        State("12 Succeeded, but something did not land", missed, _epochs(0, 12)),
        State("13 Chained", chained),
        State("14 The kernel is gone, the job is not", running, LOG_RUNNING, gone=True),
        State("5 Running batch", batch),
        State("15 A batch of which some items failed", ended_batch),
    ]


def _missing_sales(store: int) -> FailedItem:
    return FailedItem(store, f"store={store}", "ValueError: no sales before 2023-04-01", 0.7)


CLUSTER = ClusterInfo(
    "default",
    "kubernetes",
    ClusterPhase.RUNNING,
    dashboard="https://example.org/dashboard/",
    python="3.11",
    ray="2.60.0",
    resources={"CPU": 8, "memory": 32 * GIB, "GPU": 1, "node:1": 1},
    used={"CPU": 8, "memory": 21 * GIB, "GPU": 1},
    nodes=2,
    since=NOW - 4320,
)
