"""Checks what `observe.py` says about small accounts: a right one, and ones in which one thing is wrong."""

import json
from datetime import datetime, timezone

from observe import Observed
from refine import Refused

LOG, TABLES, BEGIN_MS = "T#0", "t", 1_357_000_200_000
LATER_MS = BEGIN_MS + 1_200_000
TOTALS, FIRST, LAST = (None, "totals"), (BEGIN_MS, "window"), (LATER_MS, "window")


class Account:
    """Writes an account line by line; every moment comes ten milliseconds after the one before."""

    def __init__(self) -> None:
        self.order = 0
        self.lines: list = [{"rules": {"window_ms": 300_000, "lateness_ms": 600_000}}, {"log": LOG, "topic": 0}]
        for offset, ms in enumerate((BEGIN_MS, BEGIN_MS + 60_000, LATER_MS)):
            self.lines.append({"record": "event", "log": LOG, "time_ms": ms, "series": "NYC#traffic", "future": False,
                               "puts": ["raw"], "id": f"id-{offset}"})
        self.lines += [{"record": "rejected", "log": LOG}, {"tables": TABLES}]

    def at(self, what: object) -> dict:
        """Returns the next moment."""
        self.order += 1
        return {"order": self.order, "ms": 10 * self.order, "what": what}

    def asked(self, operation: str, body: dict) -> dict:
        """Begins a request, which is sent on at once."""
        text = json.dumps(body)
        exchange = {"operation": operation, "asked": self.at(text), "sent_on": self.at(text)}
        exchange["answered"] = exchange["handed_on"] = None
        self.lines.append(exchange)
        return exchange

    def answered(self, exchange: dict, answer: dict, status: int = 200, is_lost: bool = False) -> None:
        """Ends a request."""
        what = {"status": status, "body": json.dumps(answer)}
        exchange["answered"] = self.at(what)
        exchange["handed_on"] = None if is_lost else self.at(what)

    def update(self, row: tuple, first: int, next: int, count: int) -> dict:
        """Begins the update of a row."""
        start_ms, kind = row
        values = {":first": first, ":next": next, ":n": count} | ({":l": 0} if kind == "totals" else {})
        values = {name: {"N": str(value)} for name, value in values.items()}
        if kind == "window":
            start = datetime.fromtimestamp(start_ms / 1_000, timezone.utc)
            values |= {":ws": {"S": start.strftime("%Y-%m-%dT%H:%M:%SZ")}, ":se": {"S": "NYC#traffic"}}
        return self.asked("UpdateItem", {"Key": {"series": {"S": "NYC#traffic"}},
                                         "ExpressionAttributeNames": {"#f": f"next#{LOG}"},
                                         "ExpressionAttributeValues": values})

    def counts(self, row: tuple, first: int, next: int, count: int) -> None:
        """Updates a row."""
        self.answered(self.update(row, first, next, count), shows(next))

    def progress(self, next: int, maximum: int | None, events: int, creates: bool = False) -> None:
        """Creates or moves the progress item."""
        held = {"max": maximum, "sums_next": next, "event_count": events, "late_count": 0}
        held = {name: value for name, value in held.items() if value is not None}
        values = {":next": next} | {f":a{at}": value for at, value in enumerate(held.values())}
        moves = self.asked("UpdateItem", {
            "Key": {"shard": {"S": "progress"}, "series": {"S": LOG}},
            "ConditionExpression": "attribute_not_exists(#n)" if creates else "#n < :next",
            "ExpressionAttributeNames": {"#n": "next"} | {f"#a{at}": name for at, name in enumerate(held)},
            "ExpressionAttributeValues": {name: {"N": str(value)} for name, value in values.items()}})
        self.answered(moves, {"Attributes": {}})

    def puts(self, unprocessed: tuple = ()) -> None:
        """Puts the raw items of all events."""
        items = {n: {"PutRequest": {"Item": {"event_id": {"S": f"id-{n}"}}}} for n in range(3)}
        batch = self.asked("BatchWriteItem", {"RequestItems": {"t-raw-events": list(items.values())}})
        left = {"t-raw-events": [items[n] for n in unprocessed]} if unprocessed else {}
        self.answered(batch, {"UnprocessedItems": left})

    def letter(self) -> None:
        """The dead-letter topic takes the rejected record."""
        self.lines.append({"letter": {"log": LOG, "offset": 3, "ms": self.at(None)["ms"]}})

    def commit(self, next: int = 4, maximum: int = LATER_MS, events: int = 3) -> None:
        """The group commits."""
        metadata = f"v1;topic=T;tables={TABLES};max={maximum};sums={events},0,{events},0,0,0"
        self.lines.append({"commit": {"partition": 0, "next": next, "metadata": metadata, "ms": self.at(None)["ms"]}})

    def ends(self, count: int = 3) -> None:
        """Says what the tables hold."""
        rows = {("totals", "NYC#traffic"): (3, count), ("window", "NYC#traffic", BEGIN_MS): (2, 2),
                ("window", "NYC#traffic", LATER_MS): (3, 1)}
        self.lines.append({"state": {
            "tables": TABLES, "fences": [[row, LOG, fence] for row, (fence, _) in rows.items()],
            "counts": [[row, events] for row, (_, events) in rows.items()], "progress": [[LOG, 4, LATER_MS, 3]]}})


def shows(fence: int) -> dict:
    """Returns an answer of success."""
    return {"Attributes": {f"next#{LOG}": {"N": str(fence)}}}


def refuses(fence: int) -> dict:
    """Returns an answer that refuses an update."""
    return {"Item": {f"next#{LOG}": {"N": str(fence)}}}


# What can be done otherwise than in the right account.
PARTS = {
    "create": lambda a: a.progress(0, None, 0, creates=True),
    "puts": Account.puts,
    # The answer is lost, so the same update is sent again.
    "totals": lambda a: (a.answered(a.update(TOTALS, 0, 2, 2), shows(2), is_lost=True),
                         a.answered(a.update(TOTALS, 0, 2, 2), refuses(2), 400)),
    # Two processes at the same time: the refusal is answered before the success whose fence it shows.
    "overlap": lambda a: overlap(a, 3),
    "first window": lambda a: a.counts(FIRST, 0, 2, 2),
    "last window": lambda a: a.counts(LAST, 2, 3, 1),
    "letter": Account.letter,
    "commit": Account.commit,
    "publish": lambda a: a.progress(4, LATER_MS, 3),
    "end": Account.ends,
}


def overlap(account: Account, shown: int) -> None:
    """Two updates overlap."""
    one, other = account.update(TOTALS, 2, 3, 1), account.update(TOTALS, 2, 3, 1)
    account.answered(other, refuses(shown), 400)
    account.answered(one, shows(3))


NOTHING = lambda a: None  # noqa: E731
# What is wrong, the part in which it is, what is done instead, and a part of the reason for which it is refused.
WRONG = [
    ("an update holds another sum", "first window", lambda a: a.counts(FIRST, 0, 2, 3), "land is no step: was sent"),
    ("a fence ends at the last record", "last window", lambda a: a.counts(LAST, 2, 2, 1), "send is no step: rising"),
    ("an update counts twice", "first window", lambda a: [a.counts(FIRST, 0, 2, 2) for _ in "12"],
     "land is no step: fence <= first"),
    ("an update leaves out an earlier record", "first window", lambda a: a.counts(FIRST, 1, 2, 1),
     "send is no step: in order"),
    ("a row's next update is sent before the outcome of the last one", "totals",
     lambda a: a.answered(a.update(TOTALS, 0, 2, 2), shows(2), is_lost=True), "send is no step: in order"),
    ("a refusal shows a fence that the row never had", "overlap", lambda a: overlap(a, 4), "shows the fence 4"),
    ("a commit comes before an item is stored", "puts", lambda a: a.puts((1,)), "settle is no step: raw item stored"),
    ("a commit comes before its dead letter", "letter", NOTHING, "settle is no step: dead letter there"),
    ("a commit comes before a row is updated", "last window", NOTHING, "settle is no step: counted in its window"),
    ("a commit carries another maximum", "commit", lambda a: a.commit(maximum=BEGIN_MS), "the maximum below it"),
    ("a commit carries other sums", "commit", lambda a: a.commit(events=2), "the sums below it"),
    ("a progress item carries another maximum", "publish", lambda a: a.progress(4, BEGIN_MS, 3),
     "the maximum below it"),
    ("a progress item is made twice", "publish", lambda a: a.progress(4, LATER_MS, 3, creates=True), "it was deleted"),
    ("the tables hold another count", "end", lambda a: a.ends(4), "the tables hold other counts"),
]


def refusal(parts: dict) -> str:
    """Returns why an account is refused, or nothing."""
    account = Account()
    for part in parts.values():
        part(account)
    try:
        Observed(account.lines).play()
    except Refused as refused:
        return str(refused)
    return ""


def check_observed() -> tuple[int, list[str]]:
    """Returns the number of accounts, and those that were judged otherwise than expected."""
    found = refusal(PARTS)
    problems = [f"the right account: {found}"] if found else []
    for says, part, instead, reason in WRONG:
        found = refusal({**PARTS, part: instead})
        if reason not in found:
            problems.append(f"{says}: expected {reason!r}, got {found or 'accepted'!r}")
    return 1 + len(WRONG), problems
