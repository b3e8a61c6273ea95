"""Checks that wrong traces are refused: python proof/mutate.py TRACE...

A checker that accepts everything would prove nothing. Each mutant is a trace that is accepted, with one mistake: a step
is missing, two neighbouring steps are swapped, or a parameter has another value. Not every mutant is wrong: a request
may be sent once less, and steps of two workers may be swapped. So the tables say how many of a hundred must be refused.
"""

import json
import random
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from refine import Player, Refused

# Least share of refused mutants by what was changed, in percent.
DROPPED = {"claim": 100, "create": 100, "land": 95, "put_given_up": 50, "delete": 50, "read": 90,
           "acknowledged": 65, "learnt": 60, "put_acknowledged": 65, "letter_acknowledged": 65, "publish": 60,
           "start_at_progress": 60, "settle": 50, "letter": 50, "send": 40, "start_at_commit": 30}
SWAPPED = {("claim", "claim_lands"): 100, ("create", "start_at_progress"): 90, ("start_at_progress", "offer"): 95,
           ("start_at_commit", "read"): 85, ("land", "acknowledged"): 95, ("store", "put_acknowledged"): 50,
           ("acknowledged", "settle"): 90, ("read", "send"): 85, ("settle", "offer"): 75, ("refused", "learnt"): 70,
           ("letter", "letter_acknowledged"): 70}
CHANGED = {("land", "row"): 100, ("land", "first"): 100, ("land", "next"): 100, ("land", "amount"): 100,
           ("refused", "first"): 100, ("refused", "next"): 100, ("refused", "amount"): 100,
           ("send", "row"): 100, ("send", "first"): 100, ("send", "next"): 90,
           ("acknowledged", "row"): 95, ("acknowledged", "next"): 95, ("learnt", "fence"): 95, ("learnt", "until"): 80,
           ("create", "next"): 100, ("offer", "next"): 85, ("offer", "max"): 100, ("offer", "sums"): 100,
           ("publish", "next"): 95, ("publish", "max"): 100, ("publish", "sums"): 95,
           ("start_at_commit", "next"): 95, ("start_at_commit", "max"): 100, ("start_at_commit", "sums"): 100,
           ("put_acknowledged", "offset"): 85, ("put_acknowledged", "into"): 85, ("put_given_up", "into"): 50,
           ("letter_acknowledged", "offset"): 85, ("store", "offset"): 60, ("letter", "offset"): 60}
# Mutants of one kind from one trace; traces that are used, and most lines of one.
EACH, TRACES_MAX, LINES_MAX = 1, 80, 1_200
# Mutants of a kind without which its share says nothing.
MUTANTS_MIN = 2


def refusal(lines: list[dict]) -> str:
    """Returns why a trace is refused, or nothing."""
    player = Player(judges=False)
    try:
        for line in lines:
            player.feed(line)
        player.end()
    except Refused as refused:
        return str(refused)
    return ""


def another(value: object, draw: random.Random) -> object:
    """Returns another value of the same kind."""
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 300_000 if isinstance(value[-1], int) else value[-1] + "?"]
    if isinstance(value, str):
        return {"raw": "alert", "alert": "raw"}[value]
    return 5 if value is None else value + draw.choice((-1, 1))


def mutants(lines: list[dict], draw: random.Random):
    """Yields the kind of each mutant, and the mutant."""
    places = defaultdict(list)
    for at, line in enumerate(lines):
        name = line.get("step")
        if name in DROPPED:
            places[name].append((at, None))
        for parameter in line.keys() if name else ():
            if (name, parameter) in CHANGED:
                places[name, parameter].append((at, parameter))
        pair = (name, lines[at + 1].get("step") if at + 1 < len(lines) else None)
        if pair in SWAPPED:
            places[pair].append((at, None))
    for kind, found in places.items():
        for at, parameter in draw.sample(found, min(EACH, len(found))):
            if kind in DROPPED:
                yield kind, lines[:at] + lines[at + 1:]
            elif kind in SWAPPED:
                yield kind, [*lines[:at], lines[at + 1], lines[at], *lines[at + 2:]]
            else:
                changed = {**lines[at], parameter: another(lines[at][parameter], draw)}
                yield kind, [*lines[:at], changed, *lines[at + 1:]]


def judge_mutants(path: str) -> dict:
    """Returns how many mutants of a trace were made and how many of them were refused, by their kind."""
    lines = [json.loads(text) for text in Path(path).read_text(encoding="utf-8").splitlines()]
    counts: dict = {}
    for kind, mutant in mutants(lines, random.Random(len(lines))):
        made, refused = counts.get(kind, (0, 0))
        counts[kind] = made + 1, refused + bool(refusal(mutant))
    return counts


def judge_all(paths: list[str]) -> tuple[int, int, list[str]]:
    """Returns the number of mutants, how many of them were refused, and the kinds of which too few were."""
    # The longest, in which most can happen, but each mutant is played from its beginning.
    lengths = {path: Path(path).read_text(encoding="utf-8").count("\n") for path in paths}
    paths = sorted((p for p in paths if lengths[p] <= LINES_MAX), key=lambda p: (-lengths[p], p))[:TRACES_MAX]
    made, refused = defaultdict(int), defaultdict(int)
    with ProcessPoolExecutor() as pool:
        for counts in pool.map(judge_mutants, paths):
            for kind, (more, refusals) in counts.items():
                made[kind] += more
                refused[kind] += refusals
    problems = []
    for kind, least in {**DROPPED, **SWAPPED, **CHANGED}.items():
        if made[kind] < MUTANTS_MIN:
            problems.append(f"only {made[kind]} mutants of {kind}")
        elif refused[kind] * 100 < least * made[kind]:
            problems.append(f"{refused[kind]} of {made[kind]} mutants of {kind} are refused, expected {least} of 100")
    return sum(made.values()), sum(refused.values()), problems


def main(paths: list[str]) -> int:
    """Judges the mutants of traces; returns the exit code."""
    made, refused, problems = judge_all(paths)
    print(f"{refused} of {made} mutants of traces refused" + ("" if not problems else "; too few:"))
    for problem in problems:
        print(f"  {problem}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
