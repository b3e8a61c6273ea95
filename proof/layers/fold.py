"""The laws of the fold, each proved by induction over the offset.

`SymbolicLog.laws()` states them for all offsets. z3 does not do induction by itself. So each law has two obligations
here: it holds at the offset where it begins (`base`), and if it holds at n, it holds at n + 1 (`step`). Both use the
definitions only:

    max_from(f, f, m) = m              max_from(f, n+1, m) = the maximum after record n, from max_from(f, n, m)
    count_from(f, f, m) = 0            count_from(f, n+1, m) = count_from(f, n, m) + 1 if record n counts in the row
    max_below(x) = max_from(origin, x, NEVER) and count_below(x) = count_from(row, origin, x, NEVER), from origin on;
    below it, NEVER and 0
"""

import z3

from logs import NEVER, SymbolicLog


def obligations():
    """Returns (name, premises, conclusion) of each obligation."""
    log = SymbolicLog()
    D, L, R, f, n, q, x = z3.Ints("D L R f n q x")
    g = log.origin(D, L)
    M, C, E = (lambda o: log.max_below(D, L, o)), (lambda o: log.count_below(D, L, R, o)), (
        lambda o: log.events_below(D, L, o))
    one = lambda condition: z3.If(condition, 1, 0)  # noqa: E731

    def max_at(o, before):
        return log.max_after(L, o, before)

    def define(o):
        """The definitions at offset o, from origin on and from f on."""
        from_f = log.max_from(L, f, o, M(f))
        return z3.And(
            M(o + 1) == max_at(o, M(o)), C(o + 1) == C(o) + one(log.gives(L, R, o, M(o))),
            E(o + 1) == E(o) + one(log.is_event(L, o)),
            log.max_from(L, f, o + 1, M(f)) == max_at(o, from_f),
            log.count_from(L, R, f, o + 1, M(f)) == log.count_from(L, R, f, o, M(f)) + one(log.gives(L, R, o, from_f)),
            log.events_from(L, f, o + 1) == log.events_from(L, f, o) + one(log.is_event(L, o)))
    begins = z3.And(log.max_from(L, f, f, M(f)) == M(f), log.count_from(L, R, f, f, M(f)) == 0,
                    log.events_from(L, f, f) == 0, C(g) == 0, M(g) == NEVER, E(g) == 0)
    in_range = z3.And(g <= f, f <= n, log.lateness >= 0)

    def law(name, at, first, premises=()):
        yield f"{name}, base", [begins, in_range, *premises], at(first)
        yield f"{name}, step", [begins, in_range, define(n), at(n), *premises], at(n + 1)

    same_max = lambda o: log.max_from(L, f, o, M(f)) == M(o)  # noqa: E731
    yield from law("a consumer that begins with the right maximum keeps it", same_max, f)
    yield from law("its sums are those of the log", lambda o: z3.And(
        same_max(o), log.count_from(L, R, f, o, M(f)) == C(o) - C(f)), f)
    yield from law("its events are those of the log", lambda o: E(f) + log.events_from(L, f, o) == E(o), f)
    yield from law("counts rise", lambda o: z3.And(C(f) <= C(o), C(o) >= C(g)), f, [C(f) >= C(g)])
    given = [log.gives(L, R, f, M(f)), define(f)]
    yield "a record of a row counts, base", [begins, in_range, *given], C(f) < C(f + 1)
    yield "a record of a row counts, step", [begins, in_range, define(n), C(f) < C(n)], C(f) < C(n + 1)
    yield from law("events rise", lambda o: E(o) >= 0, f, [E(f) >= 0])
    # A window's row is no totals row, and its end is that of the window of each record that counts in it.
    named = z3.And(log.is_window(R), z3.Not(log.is_window(log.totals_row(L, n))))
    closed = z3.And(M(f) > NEVER, log.window_end(R) <= M(f) - log.lateness)
    yield from law("a window whose end the watermark has passed is closed", lambda o: z3.And(
        M(f) <= M(o), C(o) == C(f)), f, [named, closed])
