"""Checks that traces are runs of the proof's transition system: python proof/refine.py [FILE...] [< trace.ndjson]

Each line is a JSON object. `docs/PROOF.md` describes the lines and who must write them:

    {"rules": {"window_ms": 300000, "lateness_ms": 600000}}        first of all
    {"log": "<topic id>#<partition>", "topic": 0}                  before its first record; topic ids count from 0
    {"record": "event", "log": L, "time_ms": 1, "series": "NYC#traffic", "future": false, "puts": ["raw", "alert"]}
    {"record": "heartbeat", "log": L, "time_ms": 1, "future": false}
    {"record": "rejected", "log": L}, {"record": "blank", "log": L}
    {"about": "a comment"}
    {"step": "send", "worker": 7, "row": ["window", "NYC#traffic", 0], "first": 0, "next": 3}
    {"state": {"tables": D, "fences": [[row, L, fence], …], "counts": [[row, count], …],
               "progress": [[L, next, max, sums], …]}}             what the tables hold at this moment

A step gives the parameters of its transition under their names (`--list` prints them). A row is
`["totals", series]` or `["window", series, start_ms]`. `null` as `max` means "none yet", and as `sums` "unknown".

The checker accepts a line only if the transition's conditions hold and if every invariant holds after it. At the end it
evaluates all invariants once more, from nothing. Exit code 0: accepted. 1: refused, with the line and the reason.
2: the trace cannot be read.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor

import layers  # noqa: F401
from engine import INVARIANTS, Judge, TRANSITIONS, Step, broken, falls, initial_state
from logs import ALERT, NEVER, RAW, UNKNOWN, ConcreteLog

ITEMS = {"raw": RAW, "alert": ALERT}


class Refused(Exception):
    """A line that is no step of the system, or after which an invariant does not hold."""


class Player:
    """Plays a trace line by line."""

    def __init__(self, transitions: dict | None = None, judges: bool = True) -> None:
        self.transitions = transitions or TRANSITIONS
        self.judge = Judge() if judges else None
        self.lines, self.steps, self.taken = 0, 0, set()
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
        elif "state" in line:
            self._state(line["state"])
        else:
            self._step(line["step"], {k: v for k, v in line.items() if k != "step"})

    def _known(self, log: object) -> None:
        if log is not None and log not in self.log.topics:
            raise Refused(f"line {self.lines}: log {log} is unknown")

    def _record(self, line: dict) -> None:
        self._known(line["log"])
        self.log.add(line["log"], line["record"], line.get("time_ms", 0), line.get("series"), line.get("future", False),
                     tuple(ITEMS[item] for item in line.get("puts", [])))
        self._step("append", {"to": line["log"]})

    def _state(self, found: dict) -> None:
        now, D = self.state, found["tables"]
        fences = {(row, L): fence for (tables, row, L), fence in now.fence.cells.items() if tables == D}
        counts: dict = {}
        for (tables, row, _), count in now.count.cells.items():
            if tables == D:
                counts[row] = counts.get(row, 0) + count
        progress = {L: (now.progress_next[D, L], now.progress_max[D, L], now.progress_sums[D, L])
                    for tables, L in now.progress_made.cells if tables == D and not now.progress_gone[D, L]}
        for name, want, got in (
                ("fences", fences, {(tuple(row), L): fence for row, L, fence in found["fences"]}),
                ("counts", counts, {tuple(row): count for row, count in found["counts"]}),
                ("progress", progress, {L: (next, _value("max", maximum), _value("sums", sums))
                                        for L, next, maximum, sums in found["progress"]})):
            if want != got:
                key = min((k for k in want.keys() | got.keys() if want.get(k) != got.get(k)), key=str)
                raise Refused(f"line {self.lines}: the tables hold other {name} than the steps give: "
                              f"{key}: {got.get(key)} instead of {want.get(key)}")

    def _step(self, name: str, values: dict) -> None:
        if name not in self.transitions:
            raise ValueError(f"there is no transition {name}")
        transition = self.transitions[name]
        if set(values) != set(transition.parameters):
            raise ValueError(f"{name} needs {transition.parameters}, not {sorted(values)}")
        values = {key: _value(key, value) for key, value in values.items()}
        self._known(values.get("of"))
        if name == "create":
            # The first creation says where the fold begins; any later one must be refused for being the second.
            self.log.origins.setdefault((values["tables"], values["of"]), values["next"])
        step = transition.step(self.state, self.log, values)
        missing = step.refused_by()
        if missing:
            raise Refused(f"line {self.lines}: {name} is no step: {'; '.join(missing)}")
        self.take(name, step)

    def take(self, name: str, step: Step) -> None:
        """Takes a step whose conditions hold."""
        fallen = falls(step)
        self.state = step.after()
        self.taken.add(name)
        self.steps += 1
        if self.judge:
            # A record and the first progress item change what a log means.
            changes_log = name in ("append", "create")
            self._refuse(name, self.judge.broken_by(self.state, self.log, None if changes_log else step))
            self._refuse(name, f"{fallen[0]}_never_falls" if fallen else None)

    def end(self) -> None:
        """Evaluates every invariant once more, and all of it."""
        self._refuse("the end", broken(self.state, self.log))

    def _refuse(self, name: str, invariant: str | None) -> None:
        if invariant:
            raise Refused(f"line {self.lines}: {name} breaks {invariant}")


def _value(name: str, value: object) -> object:
    if name in ("max", "sums") and value is None:
        return NEVER if name == "max" else UNKNOWN
    if name == "into":
        return ITEMS[value]
    return tuple(value) if isinstance(value, list) else value


def judge_file(path: str) -> tuple[str, int, set, str]:
    """Plays a file; returns its name, its number of steps, their kinds, and why it was refused, if it was."""
    player = Player()
    try:
        with open(path, encoding="utf-8") as lines:
            for text in lines:
                player.feed(json.loads(text))
        player.end()
    except Refused as refused:
        return path, player.steps, player.taken, str(refused)
    return path, player.steps, player.taken, ""


def judge_files(paths: list[str]) -> int:
    """Plays files on all processors, until one is refused; returns the exit code."""
    steps, kinds = 0, set()
    # The seeds of a simulation in the order of their numbers.
    paths = sorted(paths, key=lambda path: (len(path), path))
    with ProcessPoolExecutor() as pool:
        for path, count, taken, refused in pool.map(judge_file, paths):
            steps, kinds = steps + count, kinds | taken
            if refused:
                print(f"refused: {path}: {refused}")
                pool.shutdown(wait=True, cancel_futures=True)
                return 1
    print(f"accepted: {len(paths)} traces, {steps} steps of {len(kinds)} kinds, {len(INVARIANTS)} invariants hold")
    return 0


def main(arguments: list[str]) -> int:
    """Reads traces from files, or one from standard input; returns the exit code."""
    if "--list" in arguments:
        for transition in TRANSITIONS.values():
            print(f"{transition.name}({', '.join(transition.parameters)}): {transition.apply.__doc__.splitlines()[0]}")
        return 0
    if arguments:
        return judge_files(arguments)
    player = Player()
    try:
        for text in sys.stdin:
            if text.strip():
                player.feed(json.loads(text))
        player.end()
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
