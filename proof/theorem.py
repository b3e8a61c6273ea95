"""The theorem: what the invariants give to whoever reads the tables."""

import z3


def conclusions(now, log):
    """Returns (name, premises, conclusion) of each part of the theorem."""
    D, L, R, o, p, q, w = z3.Ints("D! L! R! o! p! q! w!")
    C = log.count_below
    maximum = log.max_below(D, L, o)
    # A worker has made everything durable up to the log's end.
    idle = [now.running[w], now.tables_of[w] == D, now.log_of[w] == L, now.durable[w] == now.end[L]]
    yield "an idle row equals the log", idle, now.count[D, R, L] == C(D, L, R, now.end[L])
    below = [*idle, log.origin(D, L) <= o, o < now.end[L]]
    counted = lambda row: o < now.fence[D, row, L]  # noqa: E731
    # An instance of the law about one record more: z3 does not come to it by itself.
    step = C(D, L, R, o + 1) == C(D, L, R, o) + z3.If(log.gives(L, R, o, maximum), 1, 0)
    yield "each record of a row is below its fence", [*below, log.gives(L, R, o, maximum), step], counted(R)
    totals, window = log.totals_row(L, o), log.window_row(L, o)
    steps = [C(D, L, row, o + 1) == C(D, L, row, o) + z3.If(log.gives(L, row, o, maximum), 1, 0)
             for row in (totals, window)]
    yield ("each event is in its totals, and in its window or late",
           [*below, log.is_event(L, o), *steps],
           z3.And(counted(totals), z3.Or(log.is_late(L, o, maximum), counted(window))))
    yield ("each event has its items, or a dead letter", [*below, log.needs_put(L, o, p)],
           z3.Or(now.stored[D, L, o, p], now.letters[L, o]))
    yield "each rejected record is a dead letter", [*below, log.is_rejected(L, o)], now.letters[L, o]
    yield ("no row counts more than the log holds", [], now.count[D, R, L] <= C(D, L, R, now.end[L]))
    yield ("the sums of an idle partition's progress item are its events, or unknown",
           [now.progress_made[D, L], now.progress_next[D, L] == now.end[L]],
           z3.Or(now.progress_sums[D, L] == -1, now.progress_sums[D, L] == log.events_below(D, L, now.end[L])))
    home = log.home(D, R)
    yield ("a final window equals the log, and keeps doing so",
           [now.called_final[q], now.reads_tables[q] == D, now.reads_row[q] == R, log.is_keyed(D, R),
            log.topic_of(home) == now.topic[()]],
           z3.And(now.shown_count[q, home] == now.count[D, R, home],
                  z3.Implies(L != home, now.count[D, R, L] == 0)))
