"""Restart points: a worker begins only where everything before is durable, with the watermark and sums of that place.

A restart point is (tables, log, next, max, sums). Each one that was ever offered stays in `points`: Kafka may hold
any of them as the group's commit, because a former owner's commit may land last, and the group may lose its offsets.
So `start_at_commit` may take any point, and the proof assumes nothing about the order of commits.

The log is (topic id, partition), and the tables are named by their random id. A topic made again is another log, and
tables made again are other tables, which begin empty.

Somebody may delete a progress item, and consumers of a version that knows no sums may take part (`forget`).
"""

from engine import (BOOL, both, either, every, every_member, every_worker, for_good, implies, invariant, negate, pick,
                    transition, variable)
from layers.rows import believed, is_counted, settled, sums_hold
from logs import NEVER, UNKNOWN

variable("tables", 0)                       # the tables that exist now
variable("points", 5, BOOL)                 # tables, log, next, max, sums: offered to Kafka, or committed
variable("progress_made", 2, BOOL)          # tables, log: the tables have begun to count the log
variable("progress_gone", 2, BOOL)          # tables, log: the progress item was deleted
variable("progress_next", 2)                # tables, log
variable("progress_max", 2, default=NEVER)  # tables, log
variable("progress_sums", 2)                # tables, log


def has_progress(now, tables, of):
    """Returns whether there is a progress item."""
    return both(now.progress_made[tables, of], negate(now.progress_gone[tables, of]))


@transition
def make_tables(step, log, tables):
    """The tables are deleted and made again, under a new id."""
    step.require("a new id", negate(step.now.tables[()] == tables))
    step.write("tables", (), tables)


@transition
def create(step, log, tables, of, next):
    """The progress item is created where none is: the tables begin, or began, to count this log here."""
    now = step.now
    step.require("there is none", negate(has_progress(now, tables, of)))
    step.require("within the log", both(0 <= next, next <= now.end[of]))
    # `origin` names the offset at which this step happens, in the only run that there is.
    step.require("the origin", next == log.origin(tables, of))
    step.write("progress_made", (tables, of), True)
    write_progress(step, tables, of, next, NEVER, 0)


def write_progress(step, tables, of, next, maximum, sums):
    """Writes a progress item."""
    step.write("progress_gone", (tables, of), False)
    step.write("progress_next", (tables, of), next)
    step.write("progress_max", (tables, of), maximum)
    step.write("progress_sums", (tables, of), sums)


@transition
def delete(step, log, tables, of):
    """Somebody deletes a progress item."""
    step.require("there is one", has_progress(step.now, tables, of))
    step.write("progress_gone", (tables, of), True)


@transition
def restore(step, log, tables, of, next, max, sums):
    """A worker makes a progress item again that was deleted, as it was to be published."""
    now = step.now
    step.require("was offered", now.points[tables, of, next, max, sums])
    step.require("into its own tables", now.tables[()] == tables)
    step.require("it was deleted", both(now.progress_made[tables, of], now.progress_gone[tables, of]))
    write_progress(step, tables, of, next, max, sums)


def begin(step, log, worker, tables, of, next, maximum, sums):
    """Begins an assignment."""
    now = step.now
    step.require("a new assignment", negate(now.running[worker]))
    step.require("the log still has it", both(now.begin[of] <= next, next <= now.end[of]))
    step.require("the tables follow this topic", log.topic_of(of) <= now.topic_told[tables])
    step.write("running", (worker,), True)
    for name, value in (("tables_of", tables), ("log_of", of), ("base", next), ("base_max", maximum),
                        ("base_sums", sums), ("position", next), ("durable", next)):
        step.write(name, (worker,), value)


@transition
def start_at_commit(step, log, worker, tables, of, next, max, sums):
    """Start rule 1: at a commit that names this log and these tables."""
    step.require("names this log and these tables", step.now.points[tables, of, next, max, sums])
    begin(step, log, worker, tables, of, next, max, sums)


@transition
def start_at_progress(step, log, worker, tables, of):
    """Start rules 3 and 4: at the progress item."""
    now = step.now
    step.require("there is one", has_progress(now, tables, of))
    begin(step, log, worker, tables, of, now.progress_next[tables, of], now.progress_max[tables, of],
          now.progress_sums[tables, of])


@transition
def settle(step, log, worker):
    """A worker moves its durable boundary over one record that waits for nothing."""
    now = step.now
    of, at = now.log_of[worker], now.durable[worker]
    late = log.is_late(of, at, believed(now, log, worker, at))
    event, rejected = log.is_event(of, at), log.is_rejected(of, at)
    passed = now.skipped[worker, at]
    step.require("running", now.running[worker])
    step.require("read", at < now.position[worker])
    for into, name in ((0, "raw item stored"), (1, "alert stored")):
        needs = log.needs_put(of, at, into)
        step.require(name, either(passed, negate(needs), now.put_done[worker, at, into]))
    step.require("dead letter there", either(passed, negate(rejected), now.letter_done[worker, at]))
    step.require("counted in its totals",
                 either(passed, negate(event), settled(now, worker, log.totals_row(of, at)) > at))
    step.require("counted in its window",
                 either(passed, negate(event), late, settled(now, worker, log.window_row(of, at)) > at))
    step.write("durable", (worker,), at + 1)


@transition
def offer(step, log, worker, tables, of, next, max, sums):
    """A worker offers a restart point: its durable boundary as it is or was, in a commit or a publication."""
    now = step.now
    begun, base = now.base_sums[worker], now.base[worker]
    step.require("running", now.running[worker])
    step.require("names its log and tables", both(now.tables_of[worker] == tables, now.log_of[worker] == of))
    step.require("durable", both(base <= next, next <= now.durable[worker]))
    step.require("the maximum below it", max == believed(now, log, worker, next))
    step.require("the sums below it", sums == pick(
        begun == UNKNOWN, UNKNOWN, begun + log.events_from(of, base, next)))
    step.write("points", (tables, of, next, max, sums), True)


@transition
def forget(step, log, tables, of, next, max, sums):
    """A consumer of an older version commits a restart point without sums."""
    step.require("was offered", step.now.points[tables, of, next, max, sums])
    step.write("points", (tables, of, next, max, UNKNOWN), True)


@transition
def forget_progress(step, log, tables, of):
    """A consumer of an older version moves a progress item: its sums are unknown."""
    step.require("there is one", has_progress(step.now, tables, of))
    step.write("progress_sums", (tables, of), UNKNOWN)


@transition
def publish(step, log, tables, of, next, max, sums):
    """DynamoDB moves the progress item forward."""
    now = step.now
    step.require("was offered", now.points[tables, of, next, max, sums])
    step.require("into its own tables", now.tables[()] == tables)
    step.require("there is one", has_progress(now, tables, of))
    step.require("forward", now.progress_next[tables, of] < next)
    write_progress(step, tables, of, next, max, sums)


def boundary_holds(now, log, tables, of, next, maximum, sums):
    """Returns whether maximum and sums are those of the log below the offset."""
    return both(now.progress_made[tables, of], log.origin(tables, of) <= next, next <= now.end[of],
                maximum == log.max_below(tables, of, next), sums_hold(now, log, tables, of, next, sums))


@invariant
def points_know_the_watermark(now, log):
    """A restart point carries the log's maximum and sums below its offset."""
    return every_member(now, "D L p m s", now.points, lambda D, L, p, m, s: implies(
        now.points[D, L, p, m, s], lambda: boundary_holds(now, log, D, L, p, m, s)))


@invariant
def progress_knows_the_watermark(now, log):
    """A progress item carries the log's maximum and sums below its offset."""
    return every(now, "D L", now.progress_made, lambda D, L: implies(now.progress_made[D, L], lambda: boundary_holds(
        now, log, D, L, now.progress_next[D, L], now.progress_max[D, L], now.progress_sums[D, L])))


def durable_below(now, log, D, L, p, part):
    """Returns whether what must be durable below an offset is, in one of three respects."""
    rows = [(R,) for R in {R for _, R, _ in now.fence.cells} | log_rows(log, L)] if not now.is_symbolic else None
    offsets = [(o,) for o in range(p)] if not now.is_symbolic else None
    items = [(o, t) for o in range(p) for t in (0, 1)] if not now.is_symbolic else None
    return (
        lambda: every(now, "R", rows, lambda R: is_counted(now, log, D, L, R, p)),
        lambda: every(now, "o t", items, lambda o, t: implies(
            both(log.origin(D, L) <= o, o < p, log.needs_put(L, o, t)),
            lambda: either(now.stored[D, L, o, t], now.letters[L, o]))),
        lambda: every(now, "o", offsets, lambda o: implies(
            both(log.origin(D, L) <= o, o < p, log.is_rejected(L, o)), lambda: now.letters[L, o])))[part]()


def log_rows(log, of):
    """Returns all rows of a concrete log."""
    offsets = range(len(log.records.get(of, [])))
    events = [o for o in offsets if log.is_event(of, o)]
    return {log.totals_row(of, o) for o in events} | {log.window_row(of, o) for o in events}


def _durable_everywhere(part):
    """Returns the condition that points, progress items and workers are durable in one respect."""
    def below(now, log, D, L, p):
        return for_good(now, (part, D, L, p), lambda: durable_below(now, log, D, L, p, part))

    def check(now, log):
        return both(
            every_member(now, "D L p m s", now.points, lambda D, L, p, m, s: implies(
                now.points[D, L, p, m, s], lambda: below(now, log, D, L, p))),
            every(now, "D L", now.progress_made, lambda D, L: implies(
                now.progress_made[D, L], lambda: below(now, log, D, L, now.progress_next[D, L]))),
            every_worker(now, "w", now.running, lambda w: implies(
                now.running[w], lambda: below(now, log, now.tables_of[w], now.log_of[w], now.durable[w]))))
    return check


@invariant
def restart_points_are_counted(now, log):
    """Every record below a restart point is counted in its rows (INV-1)."""
    return _durable_everywhere(0)(now, log)


@invariant
def restart_points_are_stored(now, log):
    """Every event below a restart point has its raw item and its alert, or a dead letter (INV-1)."""
    return _durable_everywhere(1)(now, log)


@invariant
def restart_points_have_letters(now, log):
    """Every rejected record below a restart point is a dead letter (INV-1)."""
    return _durable_everywhere(2)(now, log)


@invariant
def tables_begin_empty(now, log):
    """Without a progress item nothing of the log is counted, published or on its way."""
    return both(
        every(now, "D L", now.progress_next, lambda D, L: either(
            now.progress_made[D, L], now.progress_next[D, L] == 0)),
        every(now, "D R L", now.fence, lambda D, R, L: implies(
            now.fence[D, R, L] > 0, lambda: now.progress_made[D, L])),
        every_member(now, "D L R n", now.successes, lambda D, L, R, n: implies(
            now.successes[D, L, R, n], lambda: now.progress_made[D, L])),
        every_member(now, "D L R n", now.refusals, lambda D, L, R, n: implies(
            now.refusals[D, L, R, n], lambda: now.progress_made[D, L])))
