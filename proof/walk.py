"""Random runs of the transition system on small logs, with every invariant evaluated after each step.

Every few steps, all invariants are evaluated from nothing, so that what `Judge` leaves out would show.

The prover and the checker of traces share the transitions, but not the way in which they evaluate them. If an
invariant that z3 has proved were false in such a run, one of the two would be wrong. A seed decides a run.
"""

import random

from engine import TRANSITIONS
from layers.rows import believed
from logs import ALERT, RAW, UNKNOWN, broken_laws
from refine import Player, Refused

# Steps between two evaluations from nothing.
FROM_NOTHING = 10
# A step that takes a message takes one that was sent: the variable of the messages, and the parameters that it gives.
MESSAGES = {
    "land": ("updates", "tables of row first next amount"), "refused": ("updates", "tables of row first next amount"),
    "store": ("puts", "tables of offset into"), "publish": ("points", "tables of next max sums"),
    "start_at_commit": ("points", "tables of next max sums"), "claim_lands": ("claims", "tables topic"),
    "acknowledged": ("successes", "- - row next"), "learnt": ("refusals", "- - row fence"),
    "restore": ("points", "tables of next max sums"), "forget": ("points", "tables of next max sums"),
}
# How often a step is tried: what changes the world is rare, or nothing would be counted.
WEIGHTS = {"make_topic": 0.03, "make_tables": 0.005, "expire": 0.01, "append": 0.0, "look_begins": 0.1, "show": 0.05,
           "claim": 0.1, "letter": 0.3, "delete": 0.01, "restore": 3, "forget": 0.05, "forget_progress": 0.05,
           "offer": 0.5, "start_at_progress": 0.5, "send": 40, "settle": 6,
           "acknowledged": 6, "land": 4, "learnt": 4, "put": 4, "put_acknowledged": 20,
           "letter_acknowledged": 10, "put_given_up": 0.3,
           "look": 3, "final": 20, "publish": 3}


def _offered(player: Player, worker: int, draw: random.Random) -> dict:
    """Returns a restart point that the worker may offer, if it is running."""
    now, log = player.state, player.log
    of, base = now.log_of[worker], now.base[worker]
    next = draw.randint(base, max(base, now.durable[worker]))
    sums = now.base_sums[worker]
    return {"tables": now.tables_of[worker], "of": of, "next": next, "max": believed(now, log, worker, next),
            "sums": sums if sums == UNKNOWN else sums + log.events_from(of, base, next)}


def walk(seed: int, tries: int) -> tuple[int, set]:
    """Tries so many random steps; returns how many were steps, and of which kinds. Raises `Refused`."""
    draw = random.Random(seed)
    player = Player()
    feed, log = player.feed, player.log
    feed({"rules": {"window_ms": 2, "lateness_ms": 2}})
    for at, name in enumerate("AB"):
        feed({"log": name, "topic": at})
    for _ in range(9):
        kind = draw.choice(["event"] * 6 + ["heartbeat", "rejected", "blank"])
        feed({"record": kind, "log": draw.choice("AB"), "time_ms": draw.choice([0, 1, 2, 3, 6, 9]), "series": "s",
              "future": draw.random() < 0.1, "puts": draw.choice([[], ["raw"], ["raw", "alert"]])})
    feed({"step": "make_tables", "tables": "D"})
    rows = sorted({row for L in "AB" for o in range(9) if log.is_event(L, o)
                   for row in (log.totals_row(L, o), log.window_row(L, o))})
    domains = {"worker": range(5), "reader": range(3), "tables": "DDDE", "of": "AB", "row": rows or [("totals", "s")],
               "into": (RAW, ALERT), "topic": (0, 1), "fenced": "AB", "to": "AB"}
    begun = player.steps
    for name in draw.choices(list(TRANSITIONS), [WEIGHTS.get(name, 1.0) for name in TRANSITIONS], k=tries):
        transition = TRANSITIONS[name]
        values = {p: draw.choice(domains.get(p, range(10))) for p in transition.parameters}
        if name in MESSAGES:
            variable, parameters = MESSAGES[name]
            sent = [key for key, value in player.state.maps[variable].cells.items() if value]
            if not sent:
                continue
            values |= {p: x for p, x in zip(parameters.split(), draw.choice(sent)) if p in transition.parameters}
        if name == "offer":
            values |= _offered(player, values["worker"], draw)
        if name == "create":
            if (values["tables"], values["of"]) in log.origins:
                continue
            log.origins[values["tables"], values["of"]] = values["next"] = player.state.begin[values["of"]]
        step = transition.step(player.state, log, values)
        if step.refused_by():
            if name == "create":
                del log.origins[values["tables"], values["of"]]
            continue
        player.take(name, step)
        if player.steps % FROM_NOTHING == 0:
            player.end()
    assert not broken_laws(log, ["D", "E"]), f"seed {seed}: {broken_laws(log, ['D', 'E'])}"
    return player.steps - begun, player.taken


def walk_all(seeds: int, tries: int) -> tuple[int, list[str]]:
    """Walks with many seeds; returns the number of steps and what is wrong."""
    total, kinds = 0, set()
    try:
        for seed in range(seeds):
            steps, taken = walk(seed, tries)
            total, kinds = total + steps, kinds | taken
    except (Refused, AssertionError) as problem:
        return total, [f"seed {seed}: {problem}"]
    return total, [f"no random run takes {name}" for name in TRANSITIONS if name not in kinds]
