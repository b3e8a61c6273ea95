"""What a log means: rows, watermark and counts as functions of the log alone.

`SymbolicLog` knows the functions only by the laws that `layers/fold.py` proves by induction. `ConcreteLog` computes
them from records, so that a trace can be checked.

Names: an *offset* below `origin(tables, log)` is not part of the fold; the tables begin to count there.

| function | is |
|---|---|
| `max_below(tables, log, x)` | the largest event time below offset x; NEVER if none |
| `count_below(tables, log, row, x)` | how many records below x the row must count |
| `events_below(tables, log, x)` | how many events are below x, in windows or late |
| `max_from(log, f, x, m)` | the maximum that a consumer computes at x if it believes m at f |
| `count_from(log, row, f, x, m)` | how many records in [f, x) a consumer gives to the row if it believes m at f |
| `events_from(log, f, x)` | how many events are in [f, x) |
"""

from bisect import bisect_left
from itertools import product
from typing import Any

from engine import both, either, implies, negate, pick, z3

NEVER = -(2**63)
UNKNOWN = -1
RAW, ALERT = 0, 1
# Folds that a concrete log keeps.
FOLDS_MAX = 4_096


class Log:
    """What both kinds of log share: the rules that place a record."""

    def is_late(self, log: Any, offset: Any, believed: Any) -> Any:
        """Returns whether the event is late for a consumer that believes this maximum below it."""
        end = self.window_end(self.window_row(log, offset))
        return both(believed > NEVER, end <= believed - self.lateness)

    def gives(self, log: Any, row: Any, offset: Any, believed: Any) -> Any:
        """Returns whether the record counts in the row, for a consumer that believes this maximum below it."""
        window = both(row == self.window_row(log, offset), negate(self.is_late(log, offset, believed)))
        return both(self.is_event(log, offset), either(row == self.totals_row(log, offset), window))

    def max_after(self, log: Any, offset: Any, maximum: Any) -> Any:
        """Returns the maximum after a record, if this is the maximum before it."""
        time = self.time(log, offset)
        return pick(both(self.moves(log, offset), time > maximum), time, maximum)


class SymbolicLog(Log):
    """Any log whatever."""

    def __init__(self) -> None:
        i, b = z3.IntSort(), z3.BoolSort()
        f = z3.Function
        self.is_event, self.is_rejected = f("is_event", i, i, b), f("is_rejected", i, i, b)
        self.is_blank, self.moves = f("is_blank", i, i, b), f("moves", i, i, b)
        self.time, self.needs_put = f("time", i, i, i), f("needs_put", i, i, i, b)
        self.totals_row, self.window_row = f("totals_row", i, i, i), f("window_row", i, i, i)
        self.window_end, self.is_window = f("window_end", i, i), f("is_window", i, b)
        self.topic_of, self.home = f("topic_of", i, i), f("home", i, i, i)
        self.is_keyed = f("is_keyed", i, i, b)
        self.origin = f("origin", i, i, i)
        self.max_below, self.count_below = f("max_below", i, i, i, i), f("count_below", i, i, i, i, i)
        self.events_below = f("events_below", i, i, i, i)
        self.max_from, self.count_from = f("max_from", i, i, i, i, i), f("count_from", i, i, i, i, i, i)
        self.events_from = f("events_from", i, i, i, i)
        self.lateness = z3.Int("lateness")
        self.logs: list = []

    def laws(self) -> list:
        """Returns the laws as formulas over all logs."""
        formulas = []
        for names, law, triggers in LAWS:
            bound = [z3.Int(name) for name in names.split()]
            patterns = [z3.MultiPattern(*triggers(self, *bound))] if triggers else []
            formulas.append(z3.ForAll(bound, law(self, *bound), patterns=patterns))
        return [self.lateness >= 0, *formulas]


# The laws: names of offsets and things, the law, and the terms at which z3 shall use it. `layers/fold.py` proves the
# laws of the fold; the first ones only say what the names mean.
LAWS = [
    ("D L", lambda g, D, L: g.origin(D, L) >= 0, None),
    ("L", lambda g, L: g.topic_of(L) >= 0, None),
    # A blank offset (a control record) holds nothing; a rejected record is no event and moves no time.
    ("L x", lambda g, L, x: implies(
        g.is_blank(L, x), lambda: negate(either(g.is_event(L, x), g.is_rejected(L, x)))), None),
    ("L x", lambda g, L, x: implies(g.is_rejected(L, x), lambda: negate(g.is_event(L, x))), None),
    ("L x t", lambda g, L, x, t: implies(
        g.needs_put(L, x, t), lambda: both(g.is_event(L, x), either(t == RAW, t == ALERT))), None),
    ("L x", lambda g, L, x: both(g.is_window(g.window_row(L, x)), negate(g.is_window(g.totals_row(L, x)))), None),
    # What "one log counts in this row" means.
    ("D L R x", lambda g, D, L, R, x: implies(
        both(g.is_keyed(D, R), g.count_below(D, L, R, x) > 0), lambda: L == g.home(D, R)), None),
    # Counts and maxima rise from nothing.
    ("D L R x y", lambda g, D, L, R, x, y: implies(
        x <= y, lambda: g.count_below(D, L, R, x) <= g.count_below(D, L, R, y)),
     lambda g, D, L, R, x, y: (g.count_below(D, L, R, x), g.count_below(D, L, R, y))),
    ("D L R x", lambda g, D, L, R, x: both(
        g.count_below(D, L, R, x) >= 0,
        implies(x <= g.origin(D, L), lambda: g.count_below(D, L, R, x) == 0)), None),
    ("D L x", lambda g, D, L, x: both(
        g.events_below(D, L, x) >= 0, implies(x <= g.origin(D, L), lambda: both(
            g.events_below(D, L, x) == 0, g.max_below(D, L, x) == NEVER))), None),
    # One record more.
    ("D L R x y", lambda g, D, L, R, x, y: implies(
        both(x >= g.origin(D, L), y == x + 1),
        lambda: g.count_below(D, L, R, y) == g.count_below(D, L, R, x)
        + pick(g.gives(L, R, x, g.max_below(D, L, x)), 1, 0)),
     lambda g, D, L, R, x, y: (g.count_below(D, L, R, y), g.max_below(D, L, x))),
    ("D L R x y", lambda g, D, L, R, x, y: implies(
        both(x >= g.origin(D, L), x < y, g.gives(L, R, x, g.max_below(D, L, x))),
        lambda: g.count_below(D, L, R, x) < g.count_below(D, L, R, y)),
     lambda g, D, L, R, x, y: (g.count_below(D, L, R, y), g.max_below(D, L, x))),
    # A consumer that begins with the log's maximum computes what the log says.
    ("D L f n", lambda g, D, L, f, n: implies(
        both(g.origin(D, L) <= f, f <= n),
        lambda: g.max_from(L, f, n, g.max_below(D, L, f)) == g.max_below(D, L, n)),
     lambda g, D, L, f, n: (g.max_from(L, f, n, g.max_below(D, L, f)),)),
    ("D L R f n", lambda g, D, L, R, f, n: implies(
        both(g.origin(D, L) <= f, f <= n),
        lambda: g.count_from(L, R, f, n, g.max_below(D, L, f))
        == g.count_below(D, L, R, n) - g.count_below(D, L, R, f)),
     lambda g, D, L, R, f, n: (g.count_from(L, R, f, n, g.max_below(D, L, f)),)),
    ("D L f n", lambda g, D, L, f, n: implies(
        both(g.origin(D, L) <= f, f <= n),
        lambda: g.events_below(D, L, f) + g.events_from(L, f, n) == g.events_below(D, L, n)),
     lambda g, D, L, f, n: (g.events_below(D, L, f), g.events_from(L, f, n))),
    # Once the watermark has passed a window's end, nothing more counts in it.
    ("D L R x y", lambda g, D, L, R, x, y: implies(
        both(g.is_window(R), g.origin(D, L) <= x, x <= y, g.max_below(D, L, x) > NEVER,
             g.window_end(R) <= g.max_below(D, L, x) - g.lateness),
        lambda: g.count_below(D, L, R, y) == g.count_below(D, L, R, x)),
     lambda g, D, L, R, x, y: (g.count_below(D, L, R, y), g.max_below(D, L, x))),
]


def broken_laws(log: Any, tables: list) -> list[str]:
    """Returns the laws that do not hold on a concrete log: none, or the prover would reason from a falsehood."""
    rows = sorted({row for L in log.logs for o in range(len(log.records.get(L, []))) if log.is_event(L, o)
                   for row in (log.totals_row(L, o), log.window_row(L, o))})
    offsets = range(max((len(r) for r in log.records.values()), default=0) + 1)
    things = {"D": tables, "L": log.logs, "R": rows, "t": (RAW, ALERT)}
    return [f"law {at} ({names}) does not hold" for at, (names, law, _) in enumerate(LAWS)
            if not all(law(log, *values) for values in product(*[things.get(n, offsets) for n in names.split()]))]


class ConcreteLog(Log):
    """Logs made of records, as the lines `record` of a trace give them."""

    def __init__(self, window: int = 2, lateness: int = 2) -> None:
        self.window, self.lateness = window, lateness
        self.records: dict = {}
        self.topics: dict = {}
        self.origins: dict = {}
        self._memo: dict = {}

    @property
    def logs(self) -> list:
        """Returns the names of all logs."""
        return list(self.topics)

    def add(self, log: Any, kind: str, time: int = 0, series: Any = "s", future: bool = False,
            puts: tuple = (RAW,)) -> None:
        """Appends a record to a log: an `event`, a `heartbeat`, a `rejected` record or a `blank` offset."""
        assert kind in ("event", "heartbeat", "rejected", "blank"), kind
        self.records.setdefault(log, []).append((kind, time, series, future, tuple(puts)))
        # What was folded past the old end saw a blank offset there.
        self._memo = {k: v for k, v in self._memo.items() if k[0] != log or k[1] + len(v[0]) <= len(self.records[log])}

    def at(self, log: Any, offset: int) -> tuple:
        """Returns the record at an offset; blank outside of the log."""
        records = self.records.get(log, [])
        return records[offset] if 0 <= offset < len(records) else ("blank", 0, None, True, ())

    def is_event(self, log, o): return self.at(log, o)[0] == "event"
    def is_rejected(self, log, o): return self.at(log, o)[0] == "rejected"
    def is_blank(self, log, o): return self.at(log, o)[0] == "blank"
    def moves(self, log, o): return self.at(log, o)[0] in ("event", "heartbeat") and not self.at(log, o)[3]
    def time(self, log, o): return self.at(log, o)[1]
    def needs_put(self, log, o, table): return self.is_event(log, o) and table in self.at(log, o)[4]
    def totals_row(self, log, o): return ("totals", self.at(log, o)[2])

    def window_row(self, log, o):
        _, time, series, _, _ = self.at(log, o)
        return ("window", series, time - time % self.window)

    # A reader or worker that has not begun has row and log 0.
    def is_window(self, row): return row != 0 and row[0] == "window"
    def window_end(self, row): return row[2] + self.window if self.is_window(row) else NEVER
    def topic_of(self, log): return self.topics.get(log, 0)
    def origin(self, tables, log): return self.origins.get((tables, log), 0)

    def _counting(self, tables, row):
        return [l for l in self.logs if self.count_below(tables, l, row, len(self.records.get(l, [])))]

    def is_keyed(self, tables, row): return len(self._counting(tables, row)) == 1
    def home(self, tables, row): return self._counting(tables, row)[0]

    def _fold(self, log, f, x, m):
        """Returns maxima and each row's offsets of [f, x), for a consumer that believes m at f."""
        if len(self._memo) > FOLDS_MAX:
            self._memo.clear()
        maxima, rows = self._memo.setdefault((log, f, m), ([m], {}))
        for o in range(f + len(maxima) - 1, x):
            before = maxima[-1]
            if self.is_event(log, o):
                rows.setdefault(self.totals_row(log, o), []).append(o)
                if not self.is_late(log, o, before):
                    rows.setdefault(self.window_row(log, o), []).append(o)
            maxima.append(self.max_after(log, o, before))
        return maxima, rows

    def max_from(self, log, f, x, m): return self._fold(log, f, x, m)[0][max(x - f, 0)]
    def count_from(self, log, row, f, x, m): return bisect_left(self._fold(log, f, x, m)[1].get(row, []), x)
    def events_from(self, log, f, x): return sum(self.is_event(log, o) for o in range(f, x))
    def max_below(self, tables, log, x): return self.max_from(log, self.origin(tables, log), x, NEVER)
    def count_below(self, tables, log, row, x): return self.count_from(log, row, self.origin(tables, log), x, NEVER)
    def events_below(self, tables, log, x): return self.events_from(log, self.origin(tables, log), x)
