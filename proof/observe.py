"""Makes traces of what tests on real services have seen, and checks them: python proof/observe.py FILE...

`tests/real/observed.rs` writes the files: every request to DynamoDB as a proxy saw it, the log, the group's commits and
the dead letters as Kafka keeps them, and what the tables held in the end. A request takes effect between its moments
`sent_on` and `answered`; its sender knows the outcome from `handed_on` on. Where two requests overlap, their effects
are put into an order in which both answers are true, if there is one.

Nothing shows which records a process has read, or which of its assignments sent a request. So the trace has workers of
its own. An update goes to a worker that may send it: it began at a restart point that was offered before, and what
DynamoDB has answered by then shows that all earlier records of the row are counted. If no worker may, the update is
refused. One more worker for each log, the *keeper*, offers what processes commit and publish: it settles only what
answers and dead letters have shown by then.

Exit code 0: all accepted. 1: one is refused, with the reason.
"""

import json
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from types import SimpleNamespace

from logs import ALERT, RAW
from refine import ITEMS, Player, Refused

NAMES = {value: name for name, value in ITEMS.items()}
# Clocks of the proxy and of Kafka are those of one host, but cut to milliseconds.
CLOCK_MS = 1


def number(attribute: dict | None) -> int | None:
    """Returns the number in an attribute."""
    return int(attribute["N"]) if attribute and "N" in attribute else None


def body_of(exchange: dict, moment: str) -> dict:
    """Returns the JSON of a request or an answer; empty if there is none, or if it is no object."""
    what = (exchange[moment] or {}).get("what")
    try:
        found = json.loads(what["body"] if isinstance(what, dict) else what)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def status_of(exchange: dict, moment: str) -> int | None:
    """Returns the status of an answer."""
    return exchange[moment]["what"]["status"] if exchange[moment] else None


class Observed:
    """Turns what was seen into steps, one after another, and plays them."""

    def __init__(self, lines: list[dict]) -> None:
        self.player, self.workers = Player(judges=False), 0
        self.ids: dict = {}
        self.keepers, self.senders = {}, defaultdict(list)
        # By log: restart points that were offered.
        self.points = defaultdict(list)
        # By row and log: fences that answers have shown, those of successes and those of refusals.
        self.known = defaultdict(lambda: {"acknowledged": set(), "learnt": set()})
        self.stored_known, self.letters_known = set(), set()
        # By row and log: updates that may take effect now.
        self.pending = defaultdict(list)
        self.moving = defaultdict(list)
        self.tables = next(line["tables"] for line in lines if "tables" in line)
        self.state = next(line for line in lines if "state" in line)
        for line in lines:
            if line.keys() & {"rules", "log", "record"}:
                self._head(line)
        self.step("make_tables", tables=self.tables)
        self.step("claim", tables=self.tables, topic=0)
        self.step("claim_lands", tables=self.tables, topic=0)
        self.kafka = [(line["commit"]["ms"], 1, line["commit"]) for line in lines if "commit" in line]
        self.kafka += [(line["letter"]["ms"], 0, line["letter"]) for line in lines if "letter" in line]
        self.kafka.sort(key=lambda event: event[:2])
        self.moments = sorted(
            ((line[moment]["order"], line[moment]["ms"], moment, parsed)
             for line in lines if "operation" in line for parsed in [self._parse(line)] if parsed
             for moment in ("asked", "sent_on", "answered", "handed_on") if line[moment]),
            key=lambda moment: moment[:2])

    # --- reading ---

    def _head(self, line: dict) -> None:
        if line.get("record") == "event":
            log, end = line["log"], self.player.state.end[line["log"]]
            self.ids[line["id"]] = (log, end)
        self.player.feed({key: value for key, value in line.items() if key != "id"})

    def _parse(self, exchange: dict) -> SimpleNamespace | None:
        request = body_of(exchange, "asked")
        if exchange["operation"] == "BatchWriteItem":
            return self._parse_batch(exchange)
        if exchange["operation"] != "UpdateItem":
            return None
        values, names = request["ExpressionAttributeValues"], request["ExpressionAttributeNames"]
        answer = body_of(exchange, "answered")
        status = status_of(exchange, "answered")
        # What was changed on its way to the sender is no answer that it may believe.
        known = exchange["handed_on"] is not None and body_of(exchange, "handed_on") == answer != {}
        if ":first" in values:
            log = names["#f"].removeprefix("next#")
            shown = number(answer.get("Item", {}).get(names["#f"])) if status == 400 else None
            amount = number(values[":n"]) + (number(values.get(":l")) or 0)
            return SimpleNamespace(kind="update", log=log, row=self._row(request["Key"], values), known=known,
                                   first=number(values[":first"]), next=number(values[":next"]), amount=amount,
                                   landed=status == 200, shown=shown)
        if request["Key"].get("shard") == {"S": "progress"}:
            next = number(values.pop(":next"))
            held = {names[f"#{key[1:]}"]: number(value) for key, value in values.items()}
            is_known = held.get("sums_next") == next
            return SimpleNamespace(kind="progress", log=request["Key"]["series"]["S"], next=next,
                                   max=held.get("max"), done=status == 200,
                                   sums=held["event_count"] + held["late_count"] if is_known else None,
                                   creates="attribute_not_exists" in request["ConditionExpression"])
        return None

    def _row(self, key: dict, values: dict) -> tuple:
        if ":ws" not in values:
            return "totals", key["series"]["S"]
        start = datetime.fromisoformat(values[":ws"]["S"].replace("Z", "+00:00"))
        return "window", values[":se"]["S"], int(start.timestamp()) * 1_000

    def _parse_batch(self, exchange: dict) -> SimpleNamespace:
        stored = set()
        if status_of(exchange, "answered") == 200:
            left = self._items(body_of(exchange, "answered").get("UnprocessedItems", {}))
            stored = self._items(body_of(exchange, "sent_on")["RequestItems"]) - left
        known = set()
        if status_of(exchange, "handed_on") == 200:
            known = stored - self._items(body_of(exchange, "handed_on").get("UnprocessedItems") or {})
        return SimpleNamespace(kind="batch", asked=self._items(body_of(exchange, "asked")["RequestItems"]),
                               stored=stored, known=known)

    def _items(self, batch: dict) -> set:
        """Returns log, offset and table of each put in a batch. Rows of rollups belong to no record."""
        return {(*self.ids[put["PutRequest"]["Item"]["event_id"]["S"]], ALERT if table.endswith("-alerts") else RAW)
                for table, puts in batch.items() if not table.endswith("-totals") for put in puts}

    # --- playing ---

    def step(self, name: str, **values) -> None:
        """Plays a step."""
        self.player.feed({"step": name, **values})

    def play(self) -> None:
        """Plays everything in the order in which it happened."""
        kafka = iter([*self.kafka, None])
        event = next(kafka)
        for _, ms, moment, what in self.moments:
            while event and event[0] + CLOCK_MS < ms:
                self._kafka(event[2])
                event = next(kafka)
            getattr(self, f"_{what.kind}_{moment}", lambda what: None)(what)
        while event:
            self._kafka(event[2])
            event = next(kafka)
        self.player.feed(self.state)

    def _kafka(self, event: dict) -> None:
        if "offset" in event:
            self.step("letter", of=event["log"], offset=event["offset"])
            self.letters_known.add((event["log"], event["offset"]))
            return
        said = dict(part.split("=", 1) for part in event["metadata"].split(";") if "=" in part)
        log = f"{said.get('topic')}#{event['partition']}"
        # A commit of another tool, or of other tables, is none of ours.
        if said.get("tables") == self.tables and log in self.keepers:
            maximum = None if said["max"] == "-" else int(said["max"])
            sums = sum(int(n) for n in said["sums"].split(",")[:2]) if "sums" in said else None
            self._offer(log, event["next"], maximum, sums)

    # --- progress items and restart points ---

    def _progress_asked(self, what: SimpleNamespace) -> None:
        if not what.creates:
            self._offer(what.log, what.next, what.max, what.sums)

    def _progress_sent_on(self, what: SimpleNamespace) -> None:
        if what.done:
            self.moving[what.log].append(what)

    def _progress_answered(self, what: SimpleNamespace) -> None:
        # Of two that overlap, the lesser one took effect first: otherwise it would have been refused.
        for other in sorted(self.moving[what.log], key=lambda other: other.next):
            if what.done and other.next <= what.next:
                self.moving[what.log].remove(other)
                self._progress_takes_effect(other)

    def _progress_takes_effect(self, what: SimpleNamespace) -> None:
        log, tables = what.log, self.tables
        if not what.creates:
            self.step("publish", tables=tables, of=log, next=what.next, max=what.max, sums=what.sums)
        elif log in self.keepers:
            self.step("restore", tables=tables, of=log, next=what.next, max=what.max, sums=what.sums)
        else:
            self.step("create", tables=tables, of=log, next=what.next)
            self.keepers[log] = self._new_worker()
            self.step("start_at_progress", worker=self.keepers[log], tables=tables, of=log)
            self._offer(log, what.next, None, 0)

    def _offer(self, log: str, next: int, maximum: int | None, sums: int | None) -> None:
        """Lets the keeper of a log offer a restart point, if answers have shown that all below it is durable."""
        keeper, now = self._keeper(log), self.player.state
        self._read(keeper, next)
        while now.durable[keeper] < next:
            self._settle(keeper, log, now.durable[keeper])
        self.step("offer", worker=keeper, tables=self.tables, of=log, next=next, max=maximum, sums=sums)
        self.points[log].append((next, maximum, sums))

    def _settle(self, keeper: int, log: str, offset: int) -> None:
        known, meaning = self.player.state, self.player.log
        for into in (RAW, ALERT):
            if (log, offset, into) in self.stored_known and not known.put_done[keeper, offset, into]:
                self.step("put_acknowledged", worker=keeper, offset=offset, into=NAMES[into])
        if (log, offset) in self.letters_known:
            self.step("letter_acknowledged", worker=keeper, offset=offset)
        if meaning.is_event(log, offset):
            for row in (meaning.totals_row(log, offset), meaning.window_row(log, offset)):
                if known.settled[keeper, row] <= offset:
                    self._learn(keeper, log, row, self.player.state.end[log])
        self.step("settle", worker=keeper)

    # --- rows ---

    def _update_asked(self, what: SimpleNamespace) -> None:
        log, row = what.log, what.row
        worker = next((w for w in reversed(self.senders[log]) if self._may_send(w, what)), None)
        if worker is None:
            point = max((point for point in self.points[log] if point[0] <= what.first), key=lambda point: point[0])
            worker = self._new_worker()
            self.senders[log].append(worker)
            self.step("start_at_commit", worker=worker, tables=self.tables, of=log, next=point[0], max=point[1],
                      sums=point[2])
            self._may_send(worker, what)
        self._read(worker, what.next)
        self.step("send", worker=worker, row=row, first=what.first, next=what.next)

    def _may_send(self, worker: int, what: SimpleNamespace) -> bool:
        now, meaning, log, row = self.player.state, self.player.log, what.log, what.row
        if now.base[worker] > what.first:
            return False
        self._learn(worker, log, row, what.first)
        at = max(now.base[worker], now.settled[worker, row])
        counted = lambda offset: meaning.count_below(self.tables, log, row, offset)  # noqa: E731
        return at <= what.first and counted(at) == counted(what.first)

    def _learn(self, worker: int, log: str, row: tuple, until: int) -> None:
        """Lets a worker take the answer that shows most of a row below an offset."""
        now, known = self.player.state, self.known[row, log]
        at = max(now.base[worker], now.settled[worker, row])
        success = max((fence for fence in known["acknowledged"] if fence <= until), default=-1)
        refusal = max(known["learnt"], default=-1)
        if at < min(refusal, until) > success:
            self.step("learnt", worker=worker, row=row, fence=refusal, until=min(refusal, until))
        elif at < success:
            self.step("acknowledged", worker=worker, row=row, next=success)

    def _update_sent_on(self, what: SimpleNamespace) -> None:
        if what.landed or what.shown is not None:
            self.pending[what.row, what.log].append(what)
            self._refuse_pending(what.row, what.log)

    def _update_answered(self, what: SimpleNamespace) -> None:
        waiting = self.pending[what.row, what.log]
        if what.landed:
            self._land_until(what.row, what.log, what.first)
        elif what in waiting:
            # The fence that it shows was set by an update whose answer is not there yet.
            self._land_until(what.row, what.log, what.shown - 1)
            if what in waiting:
                fence = self.player.state.fence[self.tables, what.row, what.log]
                raise Refused(f"a refusal shows the fence {what.shown} of {what.log} in {what.row}; it is {fence}")

    def _land_until(self, row: tuple, log: str, first: int) -> None:
        """Lets updates take effect that begin at an offset or before it, in the order that their conditions demand."""
        waiting = self.pending[row, log]
        for other in sorted((u for u in waiting if u.landed), key=lambda u: u.first):
            if other.first <= first:
                waiting.remove(other)
                self._effect("land", other)
                self._refuse_pending(row, log)

    def _refuse_pending(self, row: tuple, log: str) -> None:
        """Lets refusals take effect that show the fence as it is now."""
        waiting = self.pending[row, log]
        for other in [u for u in waiting if u.shown == self.player.state.fence[self.tables, row, log]]:
            waiting.remove(other)
            self._effect("refused", other)

    def _effect(self, name: str, what: SimpleNamespace) -> None:
        self.step(name, tables=self.tables, of=what.log, row=what.row, first=what.first, next=what.next,
                  amount=what.amount)

    def _update_handed_on(self, what: SimpleNamespace) -> None:
        if what.known and what.landed:
            self.known[what.row, what.log]["acknowledged"].add(what.next)
        elif what.known and what.shown is not None:
            self.known[what.row, what.log]["learnt"].add(what.shown)

    # --- items ---

    def _batch_asked(self, what: SimpleNamespace) -> None:
        for log, offset, into in sorted(what.asked):
            self._read(self._keeper(log), offset + 1)
            self.step("put", worker=self._keeper(log), offset=offset, into=NAMES[into])

    def _batch_answered(self, what: SimpleNamespace) -> None:
        for log, offset, into in sorted(what.stored):
            self.step("store", tables=self.tables, of=log, offset=offset, into=NAMES[into])

    def _batch_handed_on(self, what: SimpleNamespace) -> None:
        self.stored_known |= what.known

    # --- workers ---

    def _keeper(self, log: str) -> int:
        """Returns the keeper of a log. Whoever works on the log knows its progress item, even before its maker does."""
        for what in [what for what in self.moving[log] if what.creates and log not in self.keepers]:
            self.moving[log].remove(what)
            self._progress_takes_effect(what)
        return self.keepers[log]

    def _new_worker(self) -> int:
        self.workers += 1
        return self.workers

    def _read(self, worker: int, until: int) -> None:
        while self.player.state.position[worker] < until:
            self.step("read", worker=worker)


def check(path: str) -> tuple[str, int, int, str]:
    """Checks a file; returns its name, the number of steps, the number of workers, and why it is refused, if it is."""
    observed = None
    try:
        with open(path, encoding="utf-8") as lines:
            observed = Observed([json.loads(line) for line in lines])
        observed.play()
    except Refused as refused:
        return path, observed.player.steps if observed else 0, 0, str(refused)
    return path, observed.player.steps, observed.workers, ""


def main(paths: list[str]) -> int:
    """Checks files on all processors; returns the exit code."""
    wrong = 0
    with ProcessPoolExecutor() as pool:
        for path, steps, workers, refused in pool.map(check, paths):
            wrong += bool(refused)
            print(f"{path}: " + (f"refused after {steps} steps: {refused}" if refused else
                                 f"accepted: {steps} steps of {workers} workers"))
    if not paths:
        print("there is nothing to check")
    return int(bool(wrong or not paths))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
