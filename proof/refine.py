"""Checks that a trace is a run of the proof's transition system: python proof/refine.py < trace.ndjson

Each line is a JSON object. `docs/PROOF.md` describes the lines and who must write them:

    {"rules": {"window_ms": 300000, "lateness_ms": 600000}}        first of all
    {"log": "<topic id>#<partition>", "topic": 0}                  before its first record; topic ids count from 0
    {"record": "event", "log": L, "time_ms": 1, "series": "NYC#traffic", "future": false, "puts": ["raw", "alert"]}
    {"record": "heartbeat", "log": L, "time_ms": 1, "future": false}
    {"record": "rejected", "log": L}, {"record": "blank", "log": L}
    {"about": "a comment"}
    {"step": "send", "worker": 7, "row": ["window", "NYC#traffic", 0], "first": 0, "next": 3}

A step gives the parameters of its transition under their names (`--list` prints them). A row is
`["totals", series]` or `["window", series, start_ms]`. `null` as `max` means "none yet", and as `sums` "unknown".

The checker accepts a line only if the transition's conditions hold, and then evaluates the invariants: after each step,
or with `--every N` after every Nth and at the end. Exit code 0: accepted. 1: refused, with the line and the reason.
2: the trace cannot be read.
"""

import json
import sys

import layers  # noqa: F401
from engine import INVARIANTS, RISING, TRANSITIONS, initial_state, judge
from logs import ALERT, NEVER, RAW, UNKNOWN, ConcreteLog

ITEMS = {"raw": RAW, "alert": ALERT}


class Refused(Exception):
    """A line that is no step of the system, or after which an invariant does not hold."""


class Player:
    """Plays a trace line by line."""

    def __init__(self, transitions: dict | None = None, every: int = 1) -> None:
        self.transitions = transitions or TRANSITIONS
        self.every, self.lines, self.steps, self.taken = every, 0, 0, set()
        self.state, self.log = initial_state(False), ConcreteLog()

    def feed(self, line: dict) -> None:
        """Plays one line; raises `Refused`, or `KeyError`, `TypeError`, `ValueError` for one that cannot be read."""
        self.lines += 1
        if "about" in line:
            return
        if "rules" in line:
            self.log.window, self.log.lateness = line["rules"]["window_ms"], line["rules"]["lateness_ms"]
        elif "log" in line and "topic" in line:
            self.log.topics[line["log"]] = int(line["topic"])
        elif "record" in line:
            self._record(line)
        else:
            self._step(line["step"], {k: v for k, v in line.items() if k != "step"})

    def _record(self, line: dict) -> None:
        if line["log"] not in self.log.topics:
            raise Refused(f"line {self.lines}: log {line['log']} is unknown")
        self.log.add(line["log"], line["record"], line.get("time_ms", 0), line.get("series"), line.get("future", False),
                     tuple(ITEMS[item] for item in line.get("puts", [])))
        self._step("append", {"to": line["log"]})

    def _step(self, name: str, values: dict) -> None:
        if name not in self.transitions:
            raise ValueError(f"there is no transition {name}")
        transition = self.transitions[name]
        if set(values) != set(transition.parameters):
            raise ValueError(f"{name} needs {transition.parameters}, not {sorted(values)}")
        values = {key: _value(key, value) for key, value in values.items()}
        if name == "create":
            # The first creation says where the fold begins; any later one must be refused for being the second.
            self.log.origins.setdefault((values["tables"], values["of"]), values["next"])
        step = transition.step(self.state, self.log, values)
        missing = step.refused_by()
        if missing:
            raise Refused(f"line {self.lines}: {name} is no step: {'; '.join(missing)}")
        falls = [variable for variable, key, value in step.writes
                 if variable in RISING and value < self.state.maps[variable][key]]
        self.state = step.after()
        self.taken.add(name)
        self.steps += 1
        if self.every and self.steps % self.every == 0:
            self.check(name)
        if falls and self.every:
            raise Refused(f"line {self.lines}: {name} breaks {falls[0]}_never_falls")

    def check(self, name: str = "the end") -> None:
        """Evaluates every invariant."""
        for invariant in INVARIANTS:
            if judge(invariant, self.state, self.log) is not True:
                raise Refused(f"line {self.lines}: {name} breaks {invariant}")


def _value(name: str, value: object) -> object:
    if name in ("max", "sums") and value is None:
        return NEVER if name == "max" else UNKNOWN
    if name == "into":
        return ITEMS[value]
    return tuple(value) if isinstance(value, list) else value


def main(arguments: list[str]) -> int:
    """Reads a trace from standard input; returns the exit code."""
    if "--list" in arguments:
        for transition in TRANSITIONS.values():
            print(f"{transition.name}({', '.join(transition.parameters)}): {transition.apply.__doc__.splitlines()[0]}")
        return 0
    every = int(arguments[arguments.index("--every") + 1]) if "--every" in arguments else 1
    player = Player(every=every)
    try:
        for text in sys.stdin:
            if text.strip():
                player.feed(json.loads(text))
        player.check()
    except Refused as refused:
        print(f"refused: {refused}")
        return 1
    except (KeyError, TypeError, ValueError, IndexError) as error:
        print(f"line {player.lines} cannot be read: {error!r}", file=sys.stderr)
        return 2
    print(f"accepted: {player.steps} steps of {len(player.taken)} kinds, {len(INVARIANTS)} invariants hold")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
