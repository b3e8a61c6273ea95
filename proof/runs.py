"""Runs over small concrete logs: good ones that take every transition, and the beginnings of those of the bugs.

A run is a list of lines as `refine.py` reads them. Windows are two units long, the lateness is two units.
"""

from logs import broken_laws
from refine import Player, Refused

TOTALS = ["totals", "s"]


def window(start: int) -> list:
    """Returns the row of the window that starts there."""
    return ["window", "s", start]


def step(name: str, **values) -> dict:
    """Returns a line for a transition."""
    return {"step": name, **values}


def event(time: int, log: str = "A", puts=(), future: bool = False) -> dict:
    """Returns a line for an event of series `s`; without items unless they are named."""
    return {"record": "event", "log": log, "time_ms": time, "series": "s", "future": future, "puts": list(puts)}


def other(kind: str, log: str = "A", **values) -> dict:
    """Returns a line for another record."""
    return {"record": kind, "log": log, **values}


def world(*records: dict, logs=("A",)) -> list:
    """Returns the lines that make logs, tables `D` and the progress item of each log."""
    lines = [{"rules": {"window_ms": 2, "lateness_ms": 2}}]
    lines += [{"log": log, "topic": at} for at, log in enumerate(logs)]
    lines += [step("make_topic") for _ in logs[1:]]
    lines += [*records, step("make_tables", tables="D"), step("claim", tables="D", topic=len(logs) - 1),
              step("claim_lands", tables="D", topic=len(logs) - 1)]
    return lines + [step("create", tables="D", of=log, next=0) for log in logs]


def begin(worker: int, log: str = "A", tables: str = "D", reads: int = 0) -> list:
    """Returns the lines of a worker that begins at the progress item and takes records."""
    return [step("start_at_progress", worker=worker, tables=tables, of=log), *[step("read", worker=worker)] * reads]


def update(row: list, first: int, next: int, amount: int, log: str = "A", tables: str = "D") -> dict:
    """Returns the parameters of an update on its way."""
    return {"tables": tables, "of": log, "row": row, "first": first, "next": next, "amount": amount}


def count(worker: int, row: list, first: int, next: int, amount: int, log: str = "A", tables: str = "D") -> list:
    """Returns the lines of an update that is sent, lands, and is acknowledged."""
    return [step("send", worker=worker, row=row, first=first, next=next),
            step("land", **update(row, first, next, amount, log, tables)),
            step("acknowledged", worker=worker, row=row, next=next)]


def store(worker: int, offset: int, into: str, log: str = "A", tables: str = "D") -> list:
    """Returns the lines of a put that is sent, stored, and acknowledged."""
    return [step("put", worker=worker, offset=offset, into=into),
            step("store", tables=tables, of=log, offset=offset, into=into),
            step("put_acknowledged", worker=worker, offset=offset, into=into)]


def settle(worker: int, times: int = 1) -> list:
    """Returns the lines of a durable boundary that moves over records."""
    return [step("settle", worker=worker)] * times


def point(next: int, max: int | None, sums: int | None, log: str = "A", tables: str = "D") -> dict:
    """Returns the parameters of a restart point."""
    return {"tables": tables, "of": log, "next": next, "max": max, "sums": sums}


def offer(worker: int, next: int, max: int | None, sums: int | None, log: str = "A", tables: str = "D") -> dict:
    """Returns the line of a restart point that a worker offers."""
    return step("offer", worker=worker, **point(next, max, sums, log, tables))


# One event on time, one that lifts the watermark, one that is late by then, and everything else a log may hold.
MIXED = world(event(1, puts=["raw", "alert"]), event(6, puts=["raw"]), event(1, puts=["raw"]), other("rejected"),
              other("blank"), other("heartbeat", time_ms=9, future=False), event(99, future=True))

EVERYTHING = [
    *MIXED,
    *begin(1, reads=4), step("skip", worker=1), *[step("read", worker=1)] * 2,
    # A zombie reads the same records.
    *begin(2, reads=2),
    *count(1, TOTALS, 0, 3, 3), *count(1, window(0), 0, 1, 1),
    step("send", worker=2, row=TOTALS, first=0, next=2), step("refused", **update(TOTALS, 0, 2, 2)),
    step("learnt", worker=2, row=TOTALS, fence=3, until=2),
    *store(1, 0, "raw"), *store(1, 0, "alert"), *store(1, 1, "raw"),
    # The table refuses the raw item of the late event.
    step("letter", of="A", offset=2), step("put_given_up", worker=1, offset=2, into="raw"),
    step("letter", of="A", offset=3), step("letter_acknowledged", worker=1, offset=3),
    step("send", worker=1, row=window(6), first=1, next=2), step("land", **update(window(6), 1, 2, 1)),
    # The reply is lost: the same update again meets its own fence.
    step("refused", **update(window(6), 1, 2, 1)), step("learnt", worker=1, row=window(6), fence=2, until=2),
    *settle(1, 3), offer(1, 3, 6, 3), *settle(1, 3), offer(1, 6, 9, 3), offer(1, 4, 6, 3),
    step("look_begins", reader=1, tables="D", row=window(0)), step("publish", **point(3, 6, 3)),
    step("look", reader=1, of="A"), step("show", reader=1), step("final", reader=1, fenced="A"),
    step("publish", **point(6, 9, 3)), step("expire", of="A", until=2),
    step("start_at_commit", worker=3, **point(3, 6, 3)), *[step("read", worker=3)] * 4,
    *count(3, TOTALS, 6, 7, 1), *count(3, window(98), 6, 7, 1),
    step("letter", of="A", offset=3), step("letter_acknowledged", worker=3, offset=3),
    *settle(3, 1), offer(3, 4, 6, 3),
    # Somebody deletes the progress item, and a consumer of an older version forgets the sums.
    step("delete", tables="D", of="A"), step("restore", **point(6, 9, 3)),
    step("forget", **point(6, 9, 3)), step("forget_progress", tables="D", of="A"),
    step("start_at_commit", worker=4, **point(6, 9, None)), offer(4, 6, 9, None),
    step("start_at_progress", worker=5, tables="D", of="A"), offer(5, 6, 9, None),
    step("delete", tables="D", of="A"), step("create", tables="D", of="A", next=0),
]

# The topic is made again, then the tables: the old log and the old tables influence neither.
AGAIN = [
    *world(event(1), event(1)), *begin(1, reads=2), *count(1, TOTALS, 0, 2, 2), *count(1, window(0), 0, 2, 2),
    *settle(1, 2), offer(1, 2, 1, 2), step("publish", **point(2, 1, 2)),
    {"log": "B", "topic": 1}, step("make_topic"), step("claim", tables="D", topic=1), event(1, "B"),
    step("claim_lands", tables="D", topic=1), step("create", tables="D", of="B", next=0), *begin(2, "B", reads=1),
    *count(2, TOTALS, 0, 1, 1, "B"), *count(2, window(0), 0, 1, 1, "B"), *settle(2),
    offer(2, 1, 1, 1, "B"),
    step("make_tables", tables="E"), step("claim", tables="E", topic=1), step("claim_lands", tables="E", topic=1),
    step("create", tables="E", of="B", next=0), *begin(3, "B", "E", reads=1),
    *count(3, TOTALS, 0, 1, 1, "B", "E"), *count(3, window(0), 0, 1, 1, "B", "E"), *settle(3),
    # Where retention was faster than the first consumer, the fold begins where the log begins.
    {"log": "C", "topic": 1}, event(9, "C"), event(1, "C"), step("expire", of="C", until=1),
    step("create", tables="E", of="C", next=1), *begin(4, "C", "E", reads=1),
    *count(4, TOTALS, 1, 2, 1, "C", "E"), *count(4, window(0), 1, 2, 1, "C", "E"), *settle(4),
    offer(4, 2, 1, 1, "C", "E"),
]

GOOD = {"everything": EVERYTHING, "made again": AGAIN}


def play(run: list, transitions: dict, taken: set) -> list[str]:
    """Plays a run; returns why it was refused, if it was, and notes which transitions it took."""
    player = Player(transitions)
    try:
        for line in run:
            player.feed(line)
        player.end()
    except Refused as refused:
        return [str(refused)]
    taken |= player.taken
    return broken_laws(player.log, ["D", "E"])
