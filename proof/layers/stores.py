"""Puts and dead letters: each event has its raw item and its alert, each rejected record its dead letter.

A put is the same whoever sends it, because its key and its content follow from the record. So there is no condition:
the proof must only show that no restart point passes a put that is not stored.
"""

from engine import BOOL, both, either, every_member, implies, invariant, transition, variable

variable("puts", 4, BOOL)           # tables, log, offset, item table: sent, may land at any time
variable("stored", 4, BOOL)         # tables, log, offset, item table
variable("letters", 2, BOOL)        # log, offset: the dead-letter topic has the record
variable("put_done", 3, BOOL)       # worker, offset, item table: the worker need not wait for this item
variable("letter_done", 2, BOOL)    # worker, offset: the worker knows that the dead letter is acknowledged


@transition
def put(step, log, worker, offset, into):
    """A worker sends a raw item or an alert."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("read", both(now.base[worker] <= offset, offset < now.position[worker]))
    step.require("the record has such an item", log.needs_put(now.log_of[worker], offset, into))
    step.write("puts", (now.tables_of[worker], now.log_of[worker], offset, into), True)


@transition
def store(step, log, tables, of, offset, into):
    """DynamoDB carries out a put."""
    now = step.now
    step.require("was sent", now.puts[tables, of, offset, into])
    step.require("into its own tables", now.tables[()] == tables)
    step.write("stored", (tables, of, offset, into), True)


@transition
def put_acknowledged(step, log, worker, offset, into):
    """A worker takes an answer that shows an item as processed."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("it is stored", now.stored[now.tables_of[worker], now.log_of[worker], offset, into])
    step.write("put_done", (worker, offset, into), True)


@transition
def put_given_up(step, log, worker, offset, into):
    """A table refused an item for good, and the record's dead letter is acknowledged."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("the dead letter is there", now.letters[now.log_of[worker], offset])
    step.write("put_done", (worker, offset, into), True)


@transition
def letter(step, log, of, offset):
    """The dead-letter topic takes a record: a rejected one, or one whose item a table refused."""
    now = step.now
    step.require("of a record", both(0 <= offset, offset < now.end[of],
                                     either(log.is_rejected(of, offset), log.is_event(of, offset))))
    step.write("letters", (of, offset), True)


@transition
def letter_acknowledged(step, log, worker, offset):
    """A worker takes the acknowledgement of a rejected record's dead letter."""
    now = step.now
    step.require("running", now.running[worker])
    step.require("it is there", now.letters[now.log_of[worker], offset])
    step.write("letter_done", (worker, offset), True)


@invariant
def items_belong_to_records(now, log):
    """Every stored item, and every item on its way, belongs to an event of the log."""
    def belongs(D, L, o, t):
        return both(0 <= o, o < now.end[L], log.needs_put(L, o, t))
    return both(
        every_member(now, "D L o t", now.puts, lambda D, L, o, t: implies(
            now.puts[D, L, o, t], lambda: belongs(D, L, o, t))),
        every_member(now, "D L o t", now.stored, lambda D, L, o, t: implies(
            now.stored[D, L, o, t], lambda: belongs(D, L, o, t))))


@invariant
def letters_belong_to_records(now, log):
    """Every dead letter belongs to a record of the log."""
    return every_member(now, "L o", now.letters, lambda L, o: implies(now.letters[L, o], lambda: both(
        0 <= o, o < now.end[L], either(log.is_rejected(L, o), log.is_event(L, o)))))


@invariant
def acknowledgements_are_true(now, log):
    """What a worker takes for stored is stored, or is a dead letter."""
    return both(
        every_member(now, "w o t", now.put_done, lambda w, o, t: implies(now.put_done[w, o, t], lambda: either(
            now.stored[now.tables_of[w], now.log_of[w], o, t], now.letters[now.log_of[w], o]))),
        every_member(now, "w o", now.letter_done, lambda w, o: implies(
            now.letter_done[w, o], lambda: now.letters[now.log_of[w], o])))
