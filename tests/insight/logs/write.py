"""Write the logs of this folder: one made log in the formats of other programs.

`python tests/insight/logs/write.py`; a test says whether the files are what this writes.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from traffic import NOON, Call, Made, Process, Truth, within  # noqa: E402

MINUTES = 12


def made() -> Made:
    """Return twelve minutes of calls, of which three quarters fail for one minute."""
    process = Process("formats", 1, 1_000)
    process.rate = 1_000 / (MINUTES * 60)
    truth = [Truth(300.0, 360.0)]
    calls = [process.ordinary(begin, 0.75 if within(truth, begin) else 0.004) for begin in process.arrivals()]
    return Made("formats", calls, truth, MINUTES * 60.0)


def nginx_json(call: Call, dice: Random) -> str:
    end = NOON + call.begin + call.took
    line = {"msec": f"{end:.3f}", "took": f"{call.took:.3f}", "status": status(call), "upstream": "10.0.0.5:8080"}
    return json.dumps(line)


def nginx_combined(call: Call, dice: Random) -> str:
    end = datetime.fromtimestamp(NOON + call.begin + call.took, UTC)
    return (
        f"203.0.113.{dice.randrange(1, 255)} - - [{end:%d/%b/%Y:%H:%M:%S} +0000] "
        f'"POST /charge HTTP/1.1" {status(call)} {dice.randrange(100, 900)} "-" "shop/2.1" {call.took:.3f}'
    )


def structured(call: Call, dice: Random) -> str:
    end = datetime.fromtimestamp(NOON + call.begin + call.took, UTC)
    line: dict[str, object] = {
        "event": "http_call",
        "level": "info" if call.error is None else "error",
        "timestamp": end.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "service": "payments",
        "duration_ms": round(call.took * 1000, 1),
        "pid": dice.choice([4711, 4712]),
    }
    line |= {"status": 200} if call.error is None else {"exception": {"type": call.error}}
    other = json.dumps({"event": "order_placed", "level": "info", "timestamp": line["timestamp"]})
    return json.dumps(line) + (f"\n{other}" if dice.random() < 0.3 else "")


def plain(call: Call, dice: Random) -> str:
    end = datetime.fromtimestamp(NOON + call.begin + call.took, UTC)
    stamp = f"{end:%Y-%m-%d %H:%M:%S},{end.microsecond // 1000:03}"
    if call.error is not None:
        return f"{stamp} ERROR [4711] payments: POST /charge: {call.error} after {call.took:.3f} s"
    return f"{stamp} INFO [4711] payments: POST /charge: 200 after {call.took:.3f} s"


def table(call: Call, dice: Random) -> str:
    begin = datetime.fromtimestamp(NOON + call.begin, UTC)
    return f"{begin.isoformat(timespec='milliseconds')};{call.took * 1e6:.0f};{status(call)};{call.error or ''}"


def status(call: Call) -> int:
    return {None: 200, "ConnectionError": 502, "TimeoutError": 504}[call.error]


FORMATS: dict[str, Callable[[Call, Random], str]] = {
    "nginx.jsonl": nginx_json,
    "access.log.gz": nginx_combined,
    "shop.jsonl": structured,
    "shop.log": plain,
    "export.csv": table,
}
HEADS = {"export.csv": "started;microseconds;status;error\n"}


def text(name: str) -> str:
    """Return what is in a file."""
    dice = Random(name)
    calls = sorted(made().calls, key=lambda call: call.begin + (0 if name == "export.csv" else call.took))
    return HEADS.get(name, "") + "".join(f"{FORMATS[name](call, dice)}\n" for call in calls)


def files() -> Iterator[tuple[Path, bytes]]:
    """Give every file and its bytes."""
    for name in FORMATS:
        data = text(name).encode()
        yield FOLDER / name, gzip.compress(data, mtime=0) if name.endswith(".gz") else data


if __name__ == "__main__":
    for path, data in files():
        path.write_bytes(data)
