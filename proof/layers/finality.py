"""Finality: a window that a reader calls `final` never changes, as long as its log stays the newest one.

A reader looks at the published watermarks one by one (`look`), then reads the row as a whole (`show`), then reads the
current topic id in the config item and judges (`final`). All reads are strongly consistent.

Premises: one log counts in the row (`home`): events are keyed by city, and the number of partitions stays. No newer
topic id is made. Updates of the config item's topic id land in the order of the ids.
"""

from engine import (BOOL, both, either, every, every_member, every_worker, implies, invariant, negate, transition,
                    variable)
from layers.restart import has_progress
from logs import NEVER

variable("topic", 0)                        # the number of the newest topic id
variable("topic_told", 1)                   # tables → the topic id in the config item
variable("claims", 2, BOOL)                 # tables, topic: asked to be written there, may land at any time
variable("looking", 1, BOOL)                # reader: it has begun
variable("showing", 1, BOOL)                # reader: it has read the row
variable("called_final", 1, BOOL)           # reader
variable("reads_tables", 1)                 # reader → tables
variable("reads_row", 1)                    # reader → row
variable("seen_next", 2)                    # reader, log → offset of the progress item that it saw
variable("seen_max", 2, default=NEVER)      # reader, log → maximum of the progress item that it saw
variable("shown_fence", 2)                  # reader, log
variable("shown_count", 2)                  # reader, log


@transition
def make_topic(step, log):
    """The topic is deleted and made again: a new topic id, and new logs."""
    step.write("topic", (), step.now.topic[()] + 1)


@transition
def claim(step, log, tables, topic):
    """A consumer that was given a topic id by Kafka asks for it to be written into the config item."""
    step.require("Kafka gave it", both(0 <= topic, topic <= step.now.topic[()]))
    step.write("claims", (tables, topic), True)


@transition
def claim_lands(step, log, tables, topic):
    """DynamoDB writes the topic id into the config item."""
    step.require("was asked for", step.now.claims[tables, topic])
    step.require("in order", step.now.topic_told[tables] <= topic)
    step.write("topic_told", (tables,), topic)


@transition
def look_begins(step, log, reader, tables, row):
    """A reader begins to ask about a window."""
    now = step.now
    step.require("a new reading", negate(now.looking[reader]))
    step.require("a window", log.is_window(row))
    step.write("looking", (reader,), True)
    step.write("reads_tables", (reader,), tables)
    step.write("reads_row", (reader,), row)


@transition
def look(step, log, reader, of):
    """A reader sees the published watermark of one partition."""
    now = step.now
    tables = now.reads_tables[reader]
    step.require("before the row", both(now.looking[reader], negate(now.showing[reader])))
    step.require("there is one", has_progress(now, tables, of))
    step.write("seen_next", (reader, of), now.progress_next[tables, of])
    step.write("seen_max", (reader, of), now.progress_max[tables, of])


@transition
def show(step, log, reader):
    """A reader reads the row: counts and fences of one moment."""
    now = step.now
    tables, row = now.reads_tables[reader], now.reads_row[reader]
    step.require("after the watermarks", both(now.looking[reader], negate(now.showing[reader])))
    step.write("showing", (reader,), True)
    step.fill("shown_fence", (reader,), lambda L: now.fence[tables, row, L], log.logs)
    step.fill("shown_count", (reader,), lambda L: now.count[tables, row, L], log.logs)


@transition
def final(step, log, reader, fenced):
    """A reader reads the current topic id and calls the window final."""
    now = step.now
    told = now.topic_told[now.reads_tables[reader]]
    end = log.window_end(now.reads_row[reader])

    def passed(L):
        seen = now.seen_max[reader, L]
        is_open = both(now.shown_fence[reader, L] > 0, log.topic_of(L) == told)
        return either(negate(is_open), both(seen > NEVER, end <= seen - log.lateness))
    step.require("after the row", both(now.looking[reader], now.showing[reader]))
    step.require("it has a fence", now.shown_fence[reader, fenced] > 0)
    step.require("the watermarks have passed", every(now, "L", [(L,) for L in log.logs], passed))
    step.write("called_final", (reader,), True)


@invariant
def config_names_a_topic(now, log):
    """The config item names the newest topic id that has counted, or a newer one."""
    return both(
        0 <= now.topic[()],
        every_member(now, "D t", now.claims, lambda D, t: implies(
            now.claims[D, t], lambda: both(0 <= t, t <= now.topic[()]))),
        every(now, "D", now.topic_told, lambda D: both(0 <= now.topic_told[D], now.topic_told[D] <= now.topic[()])),
        every_worker(now, "w", now.running, lambda w: implies(
            now.running[w], lambda: log.topic_of(now.log_of[w]) <= now.topic_told[now.tables_of[w]])),
        every_member(now, "D L R f n d", now.updates, lambda D, L, R, f, n, d: implies(
            now.updates[D, L, R, f, n, d], lambda: log.topic_of(L) <= now.topic_told[D])),
        every(now, "D R L", now.fence, lambda D, R, L: implies(
            now.fence[D, R, L] > 0, lambda: log.topic_of(L) <= now.topic_told[D])))


@invariant
def readers_see_the_past(now, log):
    """What a reader saw was true once: watermarks before the row, and the row counts all that they promise."""
    pairs = [(q, L) for q in {q for q, in now.looking.cells} for L in log.logs] if not now.is_symbolic else None

    def holds(q, L):
        D, R = now.reads_tables[q], now.reads_row[q]
        seen = now.seen_next[q, L]
        return both(
            either(now.looking[q], both(now.seen_max[q, L] == NEVER, now.shown_fence[q, L] == 0)),
            implies(now.showing[q], lambda: now.looking[q]),
            implies(now.called_final[q], lambda: now.showing[q]),
            implies(now.looking[q], lambda: log.is_window(R)),
            implies(both(now.looking[q], now.seen_max[q, L] > NEVER), lambda: both(
                log.origin(D, L) <= seen, now.seen_max[q, L] == log.max_below(D, L, seen),
                log.count_below(D, L, R, seen) <= log.count_below(D, L, R, now.fence[D, R, L]))),
            implies(now.showing[q], lambda: both(
                0 <= now.shown_fence[q, L], now.shown_fence[q, L] <= now.fence[D, R, L],
                now.shown_count[q, L] == log.count_below(D, L, R, now.shown_fence[q, L]),
                implies(now.shown_fence[q, L] > 0, lambda: both(
                    log.topic_of(L) <= now.topic_told[D], now.shown_count[q, L] > 0)),
                implies(now.seen_max[q, L] > NEVER, lambda:
                        log.count_below(D, L, R, seen) <= now.shown_count[q, L]))))
    return every(now, "q L", pairs, holds)


@invariant
def final_rows_are_closed(now, log):
    """The log of a window that was called final is in the row, and its watermark has passed the window's end."""
    def holds(q):
        D, R = now.reads_tables[q], now.reads_row[q]
        home = log.home(D, R)
        return implies(both(now.called_final[q], log.is_keyed(D, R)), lambda: both(
            now.shown_fence[q, home] > 0,
            implies(log.topic_of(home) == now.topic[()], lambda: both(
                now.seen_max[q, home] > NEVER, log.window_end(R) <= now.seen_max[q, home] - log.lateness))))
    return every(now, "q", now.called_final, holds)


@invariant
def final_is_final(now, log):
    """A window that was called final keeps the counts that were shown, if one log counts in it and is the newest."""
    pairs = [(q, L) for q, in now.called_final.cells for L in log.logs] if not now.is_symbolic else None

    def holds(q, L):
        D, R = now.reads_tables[q], now.reads_row[q]
        premise = both(now.called_final[q], log.is_keyed(D, R))
        return implies(premise, lambda: implies(
            log.topic_of(log.home(D, R)) == now.topic[()],
            lambda: now.count[D, R, L] == now.shown_count[q, L]))
    return every(now, "q L", pairs, holds)
