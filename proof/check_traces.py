"""Plays the traces in `proof/traces` and checks what `refine.py` says about each.

The first line of a trace is a comment: what it shows, and with `expect` the words of its refusal.
"""

import json
import subprocess
import sys
from pathlib import Path

PLACE = Path(__file__).parent


def check_traces() -> tuple[int, list[str]]:
    """Returns the number of traces, and those that were judged otherwise than they expect."""
    problems = []
    traces = sorted((PLACE / "traces").glob("*.ndjson"))
    for trace in traces:
        text = trace.read_text()
        expected = json.loads(text.splitlines()[0]).get("expect", "accepted")
        code = 0 if expected == "accepted" else 2 if "cannot be read" in expected else 1
        ran = subprocess.run([sys.executable, PLACE / "refine.py"], input=text, capture_output=True, text=True)
        said = ran.stdout + ran.stderr
        if ran.returncode != code or expected not in said:
            problems.append(f"{trace.name}: expected {expected!r}, got exit {ran.returncode}: {said.strip()}")
    if not traces:
        problems.append("there is no trace")
    return len(traces), problems
