"""Rows and fences: each row holds exactly the records below its fence, whatever is repeated, delayed or lost.

One key of `fence` and `count` is (tables, row, log). A row of the tables has one fence for each log; its counts are
sums over all logs, and `count` is one log's share. `ADD` is additive, so the shares do not influence each other.
An absent fence is 0, which the condition `absent or fence <= first` treats alike.

A worker is one assignment of one partition. Any number of workers read the same log at the same time: ownership is
not assumed. A worker that dies takes no further step. A request that is lost never lands. One that is repeated or
delayed lands more than once, or after the death of its sender.
"""

from engine import (BOOL, both, either, every, every_member, every_worker, for_good, implies, invariant, pick, transition,
                    variable)
from logs import NEVER

variable("end", 1)                          # log → offset after its last record
variable("begin", 1)                        # log → offset of its oldest record that retention left
variable("fence", 3)                        # tables, row, log
variable("count", 3)                        # tables, row, log
variable("updates", 6, BOOL)                # tables, log, row, first, next, amount: sent, may land at any time
variable("successes", 4, BOOL)              # tables, log, row, fence: an answer shows the fence there
variable("refusals", 4, BOOL)               # tables, log, row, fence: a refusal shows the fence there
variable("running", 1, BOOL)                # worker
variable("tables_of", 1)                    # worker → tables
variable("log_of", 1)                       # worker → log
variable("base", 1)                         # worker → offset at which it began
variable("base_max", 1, default=NEVER)      # worker → maximum with which it began
variable("base_sums", 1)                    # worker → sums with which it began, or UNKNOWN
variable("position", 1)                     # worker → offset after the last record that it took
variable("durable", 1)                      # worker → offset after its contiguous durable prefix
variable("settled", 2)                      # worker, row → offset below which it knows the row's records to be counted
variable("skipped", 2, BOOL)                # worker, offset: it passed over this offset


def believed(now, log, worker, offset):
    """Returns the maximum that a worker computes at an offset."""
    return log.max_from(now.log_of[worker], now.base[worker], offset, now.base_max[worker])


def settled(now, worker, row):
    """Returns the offset below which a worker knows the row's records to be counted."""
    at, base = now.settled[worker, row], now.base[worker]
    return pick(at > base, at, base)


def is_counted(now, log, tables, of, row, offset):
    """Returns whether all records of the row below an offset are counted in it."""
    return for_good(now, (is_counted, tables, of, row, offset), lambda: (
        log.count_below(tables, of, row, offset) <= log.count_below(tables, of, row, now.fence[tables, row, of])))


@transition
def append(step, log, to):
    """A producer appends a record."""
    step.write("end", (to,), step.now.end[to] + 1)


@transition
def expire(step, log, of, until):
    """Retention removes the oldest records."""
    step.require("forward", both(step.now.begin[of] <= until, until <= step.now.end[of]))
    step.write("begin", (of,), until)


@transition
def read(step, log, worker):
    """A worker takes the record at its position: the next one, without a gap."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("within the log", now.position[worker] < now.end[now.log_of[worker]])
    step.write("position", (worker,), now.position[worker] + 1)


@transition
def skip(step, log, worker):
    """A worker passes over an offset at which a second read found nothing."""
    now = step.now
    at = now.position[worker]
    step.require("running", now.running[worker])
    step.require("within the log", at < now.end[now.log_of[worker]])
    step.require("the log holds nothing there", log.is_blank(now.log_of[worker], at))
    step.write("skipped", (worker, at), True)
    step.write("position", (worker,), at + 1)


@transition
def send(step, log, worker, row, first, next):
    """A worker sends the sum of a stretch: from the first record that is not settled."""
    now = step.now
    of, at = now.log_of[worker], settled(now, worker, row)
    step.require("running", now.running[worker])
    step.require("rising", both(now.base[worker] <= first, first < next))
    step.require("read", next <= now.position[worker])
    step.require("in order", both(at <= first, log.count_from(of, row, at, first, believed(now, log, worker, at)) == 0))
    step.require("begins with a record of the row", log.gives(of, row, first, believed(now, log, worker, first)))
    amount = log.count_from(of, row, first, next, believed(now, log, worker, first))
    step.write("updates", (now.tables_of[worker], of, row, first, next, amount), True)


@transition
def land(step, log, tables, of, row, first, next, amount):
    """DynamoDB carries out an update: it adds the sum and moves the fence, both or neither."""
    now = step.now
    step.require("was sent", now.updates[tables, of, row, first, next, amount])
    step.require("into its own tables", now.tables[()] == tables)
    step.require("fence <= first", now.fence[tables, row, of] <= first)
    step.write("count", (tables, row, of), now.count[tables, row, of] + amount)
    step.write("fence", (tables, row, of), next)
    step.write("successes", (tables, of, row, next), True)


@transition
def refused(step, log, tables, of, row, first, next, amount):
    """DynamoDB refuses an update and shows the fence."""
    now = step.now
    step.require("was sent", now.updates[tables, of, row, first, next, amount])
    step.require("fence > first", now.fence[tables, row, of] > first)
    step.write("refusals", (tables, of, row, now.fence[tables, row, of]), True)


@transition
def acknowledged(step, log, worker, row, next):
    """A worker takes an answer that shows this row with its fence at `next`."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("shows the fence", now.successes[now.tables_of[worker], now.log_of[worker], row, next])
    step.require("forward", settled(now, worker, row) <= next)
    step.write("settled", (worker, row), next)


@transition
def learnt(step, log, worker, row, fence, until):
    """A worker takes a refusal: the records below the fence, or fewer, are counted already."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("shows the fence", now.refusals[now.tables_of[worker], now.log_of[worker], row, fence])
    step.require("not past the fence", until <= fence)
    step.require("forward", settled(now, worker, row) <= until)
    step.write("settled", (worker, row), until)


@invariant
def row_equals_fold(now, log):
    """The count of a row is the fold of the log below the row's fence."""
    return every(now, "D R L", now.fence, lambda D, R, L: both(
        now.count[D, R, L] == log.count_below(D, L, R, now.fence[D, R, L]),
        0 <= now.fence[D, R, L], now.fence[D, R, L] <= now.end[L],
        implies(now.fence[D, R, L] > 0, lambda: log.count_below(D, L, R, now.fence[D, R, L]) > 0)))


@invariant
def updates_continue_rows(now, log):
    """An update that was sent holds exactly the row's records of its range, and all earlier ones are counted."""
    return every_member(now, "D L R f n d", now.updates, lambda D, L, R, f, n, d: implies(
        now.updates[D, L, R, f, n, d], lambda: both(
            now.progress_made[D, L], log.origin(D, L) <= f, f < n, n <= now.end[L], d > 0,
            d == log.count_below(D, L, R, n) - log.count_below(D, L, R, f), is_counted(now, log, D, L, R, f))))


@invariant
def answers_are_true(now, log):
    """What an answer shows was counted stays counted."""
    return both(
        every_member(now, "D L R n", now.successes, lambda D, L, R, n: implies(
            now.successes[D, L, R, n], lambda: both(n <= now.end[L], is_counted(now, log, D, L, R, n)))),
        every_member(now, "D L R n", now.refusals, lambda D, L, R, n: implies(
            now.refusals[D, L, R, n], lambda: both(n <= now.end[L], is_counted(now, log, D, L, R, n)))))


@invariant
def workers_know_the_watermark(now, log):
    """A worker stands within its log, and its maximum is the log's own, whoever read up to there before (INV-4)."""
    return every_worker(now, "w", now.running, lambda w: implies(now.running[w], lambda: both(
        now.progress_made[now.tables_of[w], now.log_of[w]],
        log.origin(now.tables_of[w], now.log_of[w]) <= now.base[w], now.base[w] <= now.durable[w],
        now.durable[w] <= now.position[w], now.position[w] <= now.end[now.log_of[w]],
        now.base_max[w] == log.max_below(now.tables_of[w], now.log_of[w], now.base[w]),
        sums_hold(now, log, now.tables_of[w], now.log_of[w], now.base[w], now.base_sums[w]))))


def sums_hold(now, log, tables, of, offset, sums):
    """Returns whether sums are unknown, or are those of the log below an offset."""
    return either(sums == -1, sums == log.events_below(tables, of, offset))


@invariant
def workers_settle_what_is_counted(now, log):
    """What a worker takes for counted is counted."""
    return every_worker(now, "w R", now.settled, lambda w, R: implies(now.running[w], lambda: both(
        settled(now, w, R) <= now.end[now.log_of[w]],
        is_counted(now, log, now.tables_of[w], now.log_of[w], R, settled(now, w, R)))))


@invariant
def assignments_begin_empty(now, log):
    """A worker that has not begun knows nothing: all state belongs to one assignment."""
    return both(
        every_worker(now, "w R", now.settled, lambda w, R: either(now.running[w], now.settled[w, R] == 0)),
        every_worker(now, "w", now.position, lambda w: either(
            now.running[w], both(now.position[w] == 0, now.durable[w] == 0))),
        every_member(now, "w o", now.skipped, lambda w, o: implies(now.skipped[w, o], lambda: now.running[w])),
        every_member(now, "w o t", now.put_done, lambda w, o, t: implies(
            now.put_done[w, o, t], lambda: now.running[w])),
        every_member(now, "w o", now.letter_done, lambda w, o: implies(now.letter_done[w, o], lambda: now.running[w])))


@invariant
def gaps_are_real(now, log):
    """A worker passed over blank offsets only."""
    return every_member(now, "w o", now.skipped, lambda w, o: implies(
        now.skipped[w, o], lambda: log.is_blank(now.log_of[w], o)))
