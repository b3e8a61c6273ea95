"""The planted bugs: each changes one transition, and must break the invariant that it names.

`code` names the patches in `src/core/mutants` that plant the same bug in the program. Run as a program, this file
prints them with what they break, for the table that `scripts/planted-bugs` makes.
"""

from engine import Bug, instead, is_term, without, z3
from layers.rows import believed
from logs import NEVER, UNKNOWN
from runs import TOTALS, begin, count, event, offer, other, point, settle, step, update, window, world

ONE = world(event(1))
TWO = world(event(1), event(1))
LATE = world(event(1), event(6), event(1))


def _counted(worker=1, log="A", tables="D", offset=0, start=0):
    """Counts one event in both of its rows."""
    return [*count(worker, TOTALS, offset, offset + 1, 1, log, tables),
            *count(worker, window(start), offset, offset + 1, 1, log, tables)]


def _shared(of):
    """The fence's name without the topic id: log B has the place of log A."""
    return z3.Function("same_partition", z3.IntSort(), z3.IntSort())(of) if is_term(of) else "A"


def _without_topic(s, log, v):
    now, key = s.now, (v["tables"], v["row"], _shared(v["of"]))
    without("fence <= first")(s, log, v)
    s.require("fence <= first", now.fence[key] <= v["first"])
    s.writes = [("count", key, now.count[key] + v["amount"]), ("fence", key, v["next"]), s.writes[-1]]


def _lateness_of_batch(s, log, v):
    """Judges every record of the stretch by the watermark with which the worker began."""
    now, w = s.now, v["worker"]
    of, m = now.log_of[w], now.base_max[w]
    without("begins with a record of the row")(s, log, v)
    s.require("begins with a record of the row", log.gives(of, v["row"], v["first"], m))
    amount = log.count_from(of, v["row"], v["first"], v["next"], m)
    s.writes = [("updates", (now.tables_of[w], of, v["row"], v["first"], v["next"], amount), True)]


def _into_current_tables(s, log, v):
    """Lands in the tables that exist, whichever the update was summed for."""
    now = s.now
    key = (now.tables[()], v["row"], v["of"])
    without("into its own tables", "fence <= first")(s, log, v)
    s.require("fence <= first", now.fence[key] <= v["first"])
    s.writes = [("count", key, now.count[key] + v["amount"]), ("fence", key, v["next"]), s.writes[-1]]


def _publish_into_current_tables(s, log, v):
    key = (s.now.tables[()], v["of"])
    s.guards = [g for g in s.guards if g[0] == "was offered"]
    s.require("there is one", s.now.progress_made[key])
    s.require("forward", s.now.progress_next[key] < v["next"])
    s.writes = [(n, key, x) for n, _, x in s.writes]


def _publish_makes(s, log, v):
    """A move makes the item where there is none."""
    key = (s.now.tables[()], v["of"])
    s.guards = [g for g in s.guards if g[0] == "was offered"]
    s.writes = [(n, key, x) for n, _, x in s.writes] + [("progress_made", key, True)]


def _offers(name, condition):
    """Offers restart points for which another condition holds."""
    def change(s, log, v):
        without(name)(s, log, v)
        s.require(name, condition(s.now, log, v))
    return change


def _maximum_at(at):
    """A restart point carries the maximum of another offset."""
    return _offers("the maximum below it", lambda now, log, v: v["max"] == believed(now, log, v["worker"], at(now, v)))


def _sums_at_position(now, log, v):
    w = v["worker"]
    return v["sums"] == now.base_sums[w] + log.events_from(now.log_of[w], now.base[w], now.position[w])


def _no_commit_is_new(s, log, v):
    """Begins at the log's start with nothing known, although the tables hold a progress item."""
    start = s.now.begin[v["of"]]
    s.guards = [g for g in s.guards if g[0] not in ("there is one", "the log still has it")]
    s.writes = [(n, k, {"base": start, "position": start, "durable": start, "base_max": NEVER, "base_sums": 0}
                 .get(n, x)) for n, k, x in s.writes]


def _kept(name, value):
    """State survives into the next assignment."""
    def change(s, log, v):
        without("a new assignment")(s, log, v)
        s.writes = [(n, k, value(s, log, v) if n == name else x) for n, k, x in s.writes]
    return change


def _learnt(until):
    return instead("settled", value=until, drop=("not past the fence",))


EXPIRED = [*world(event(6), event(1)), *begin(1, reads=1), *count(1, TOTALS, 0, 1, 1), *count(1, window(6), 0, 1, 1),
           *settle(1), offer(1, 1, 6, 1), step("publish", **point(1, 6, 1)), step("expire", of="A", until=1)]
LOST_REPLY = [*ONE, *begin(1, reads=1), step("send", worker=1, row=TOTALS, first=0, next=1)]
OTHER_TABLES = [*TWO, *begin(1, reads=1), *_counted(), *settle(1), offer(1, 1, 1, 1),
                step("make_tables", tables="E"), step("claim", tables="E", topic=0),
                step("claim_lands", tables="E", topic=0)]
TWO_LOGS = world(event(1), event(1, "B"), logs=("A", "B"))
READING = [*LATE, *begin(1, reads=2), *count(1, TOTALS, 0, 2, 2), *count(1, window(0), 0, 1, 1),
           *count(1, window(6), 1, 2, 1), *settle(1, 2), offer(1, 2, 6, 2)]

BUGS = [
    # Rows.
    Bug("no condition", "an update has no condition, so its repetition counts twice", "land", "row_equals_fold",
        without("fence <= first"), [*LOST_REPLY, *[step("land", **update(TOTALS, 0, 1, 1))] * 2], "table_no_condition"),
    Bug("next is last", "the fence ends at the last record instead of after it", "land", "row_equals_fold",
        instead("fence", value=lambda s, log, v: v["next"] - 1),
        [*LOST_REPLY, step("land", **update(TOTALS, 0, 1, 1))], "next_is_last"),
    Bug("fence without topic", "the fence does not name the topic id", "land", "row_equals_fold", _without_topic,
        [*world(event(9), event(1, "B"), logs=("A", "B")), *begin(1, "B", reads=1),
         step("send", worker=1, row=window(0), first=0, next=1), step("land", **update(window(0), 0, 1, 1, "B"))],
        "fence_without_topic"),
    Bug("unknown is done", "an answer that shows nothing counts as success", "acknowledged",
        "workers_settle_what_is_counted", without("shows the fence"),
        [*LOST_REPLY, step("acknowledged", worker=1, row=TOTALS, next=1)],
        "unknown_is_done, success_believed, one_for_all"),
    Bug("refusal believed", "a refusal counts, whatever row it shows", "learnt", "workers_settle_what_is_counted",
        without("shows the fence"), [*LOST_REPLY, step("learnt", worker=1, row=TOTALS, fence=1, until=1)],
        "refusal_believed"),
    Bug("fence inclusive", "after a refusal the record at the fence is dropped too", "learnt",
        "workers_settle_what_is_counted", _learnt(lambda s, log, v: v["fence"] + 1),
        [*TWO, *begin(1, reads=1), *count(1, TOTALS, 0, 1, 1), *begin(2, reads=2),
         step("send", worker=2, row=TOTALS, first=0, next=2), step("refused", **update(TOTALS, 0, 2, 2)),
         step("learnt", worker=2, row=TOTALS, fence=1, until=1)], "fence_inclusive"),
    Bug("conflict is done", "a refused update counts as done to its end", "learnt", "workers_settle_what_is_counted",
        without("not past the fence"),
        [*TWO, *begin(1, reads=1), *count(1, TOTALS, 0, 1, 1), *begin(2, reads=2),
         step("send", worker=2, row=TOTALS, first=0, next=2), step("refused", **update(TOTALS, 0, 2, 2)),
         step("learnt", worker=2, row=TOTALS, fence=1, until=2)], "conflict_is_done"),
    Bug("row order lost", "the next stretch of a row goes first after an unknown outcome", "send",
        "updates_continue_rows", without("in order"),
        [*TWO, *begin(1, reads=2), step("send", worker=1, row=TOTALS, first=1, next=2)], "row_order_lost"),
    Bug("lateness of the batch", "lateness is judged by the watermark before the batch", "send", "updates_continue_rows",
        _lateness_of_batch,
        [*LATE, *begin(1, reads=3), *count(1, window(0), 0, 1, 1),
         step("send", worker=1, row=window(0), first=2, next=3)], "lateness_per_batch"),
    Bug("update into other tables", "an update lands in tables that were made after it was summed", "land",
        "row_equals_fold", _into_current_tables,
        [*TWO, *begin(1, reads=2), *count(1, TOTALS, 0, 1, 1), step("send", worker=1, row=TOTALS, first=1, next=2),
         step("make_tables", tables="E"), step("create", tables="E", of="A", next=0),
         step("land", **update(TOTALS, 1, 2, 1))], "replaced_tables_believed, tables_trusted_forever"),
    Bug("answers of an earlier assignment", "what an earlier assignment settled is kept", "start_at_progress",
        "workers_settle_what_is_counted", without("a new assignment"),
        [*TWO_LOGS, *begin(1, reads=1), *count(1, TOTALS, 0, 1, 1),
         step("start_at_progress", worker=1, tables="D", of="B")], "late_answers_taken"),
    # Gaps, puts, dead letters.
    Bug("gap believed", "a gap counts as real whatever the second read found", "skip", "gaps_are_real",
        without("the log holds nothing there"), [*ONE, *begin(1), step("skip", worker=1)], "gap_believed, gap_unseen"),
    Bug("put not awaited", "a record is durable before its raw item is stored", "settle", "restart_points_are_stored",
        without("raw item stored"), [*world(event(1, puts=["raw"])), *begin(1, reads=1), *_counted(), *settle(1)],
        "put_not_awaited"),
    Bug("alert not awaited", "a record is durable before its alert is stored", "settle", "restart_points_are_stored",
        without("alert stored"), [*world(event(1, puts=["alert"])), *begin(1, reads=1), *_counted(), *settle(1)],
        "put_not_awaited"),
    Bug("unprocessed dropped", "an item that the table left unprocessed counts as stored", "put_acknowledged",
        "acknowledgements_are_true", without("it is stored"),
        [*world(event(1, puts=["raw"])), *begin(1, reads=1), step("put", worker=1, offset=0, into="raw"),
         step("put_acknowledged", worker=1, offset=0, into="raw")], "unprocessed_dropped"),
    Bug("refused not awaited", "a refused item counts as settled before its dead letter is there", "put_given_up",
        "acknowledgements_are_true", without("the dead letter is there"),
        [*world(event(1, puts=["raw"])), *begin(1, reads=1), step("put_given_up", worker=1, offset=0, into="raw")],
        "refused_not_awaited"),
    Bug("dead letter not awaited", "a rejected record is durable before its dead letter is there", "settle",
        "restart_points_have_letters", without("dead letter there"),
        [*world(other("rejected")), *begin(1, reads=1), *settle(1)], "dead_letter_not_awaited"),
    # Restart points.
    Bug("totals not awaited", "the boundary passes an event that is not in its totals", "settle",
        "restart_points_are_counted", without("counted in its totals"),
        [*ONE, *begin(1, reads=1), *count(1, window(0), 0, 1, 1), *settle(1)], "commit_largest"),
    Bug("window not awaited", "the boundary passes an event that is not in its window", "settle",
        "restart_points_are_counted", without("counted in its window"),
        [*ONE, *begin(1, reads=1), *count(1, TOTALS, 0, 1, 1), *settle(1)], "commit_largest"),
    Bug("commit position", "a restart point is the position, not the durable boundary", "offer",
        "restart_points_are_counted",
        _offers("durable", lambda now, log, v: v["next"] == now.position[v["worker"]]),
        [*ONE, *begin(1, reads=1), offer(1, 1, 1, 1)], "commit_position, progress_early"),
    Bug("max ahead", "a restart point carries the maximum of the position", "offer", "points_know_the_watermark",
        _maximum_at(lambda now, v: now.position[v["worker"]]), [*ONE, *begin(1, reads=1), offer(1, 0, 1, 0)],
        "max_ahead"),
    Bug("max behind", "a restart point carries the maximum before its last record", "offer", "points_know_the_watermark",
        _maximum_at(lambda now, v: v["next"] - 1),
        [*ONE, *begin(1, reads=1), *_counted(), *settle(1), offer(1, 1, None, 1)], "max_behind"),
    Bug("sums ahead", "a restart point carries the sums of the position", "offer", "points_know_the_watermark",
        _offers("the sums below it", _sums_at_position), [*ONE, *begin(1, reads=1), offer(1, 0, None, 1)],
        "sums_ahead"),
    Bug("unknown sums are zero", "unknown sums are taken for zero at a start", "start_at_commit",
        "workers_know_the_watermark",
        instead("base_sums", value=lambda s, log, v: z3.If(v["sums"] == UNKNOWN, 0, v["sums"]) if is_term(v["sums"])
                else max(v["sums"], 0), drop=("names this log and these tables",)),
        [*ONE, *begin(1, reads=1), *_counted(), *settle(1), step("start_at_commit", worker=2, **point(1, 1, None))],
        "unknown_sums_are_zero"),
    # The start rule.
    Bug("other tables believed", "a commit of other tables is taken", "start_at_commit", "restart_points_are_counted",
        without("names this log and these tables"),
        [*OTHER_TABLES, step("create", tables="E", of="A", next=0),
         step("start_at_commit", worker=2, **point(1, 1, 1, "A", "E"))], "other_tables_believed"),
    Bug("other topic believed", "a commit of another topic id is taken", "start_at_commit", "restart_points_are_counted",
        without("names this log and these tables"),
        [*TWO_LOGS, *begin(1, reads=1), *_counted(), *settle(1), offer(1, 1, 1, 1),
         step("start_at_commit", worker=2, **point(1, 1, 1, "B"))], "other_topic_believed"),
    Bug("no commit is a new log", "without a commit the partition begins at the log's start, with nothing known",
        "start_at_progress", "workers_know_the_watermark", _no_commit_is_new,
        [*EXPIRED, step("start_at_progress", worker=2, tables="D", of="A")], "no_commit_is_new_log"),
    Bug("metadata missing", "a commit without metadata is taken as one without a maximum", "start_at_commit",
        "workers_know_the_watermark", instead("base_max", value=lambda s, log, v: NEVER),
        [*EXPIRED, step("start_at_commit", worker=2, **point(1, 6, 1))], "metadata_missing"),
    Bug("watermark kept", "the maximum survives into the next assignment", "start_at_commit",
        "workers_know_the_watermark",
        _kept("base_max", lambda s, log, v: believed(s.now, log, v["worker"], s.now.position[v["worker"]])),
        [*world(event(1), event(6)), *begin(1), offer(1, 0, None, 0), *[step("read", worker=1)] * 2,
         step("start_at_commit", worker=1, **point(0, None, 0))], "watermark_kept"),
    Bug("sums kept", "the sums survive into the next assignment", "start_at_commit", "workers_know_the_watermark",
        _kept("base_sums", lambda s, log, v: s.now.base_sums[v["worker"]] + log.events_from(
            s.now.log_of[v["worker"]], s.now.base[v["worker"]], s.now.position[v["worker"]])),
        [*ONE, *begin(1), offer(1, 0, None, 0), step("read", worker=1),
         step("start_at_commit", worker=1, **point(0, None, 0))], "sums_kept"),
    # Progress items.
    Bug("progress moves back", "a progress item takes an older restart point", "publish", "progress_next_never_falls",
        without("forward"),
        [*TWO, *begin(1, reads=2), offer(1, 0, None, 0), *_counted(), *settle(1), offer(1, 1, 1, 1),
         step("publish", **point(1, 1, 1)), step("publish", **point(0, None, 0))], "table_progress_back"),
    Bug("progress made by a move", "a move makes the item in tables that were made anew", "publish",
        "restart_points_are_counted", _publish_makes,
        [*OTHER_TABLES, step("publish", **point(1, 1, 1))], "table_progress_made"),
    Bug("progress of other tables", "a restart point of the old tables moves the item of the new ones", "publish",
        "restart_points_are_counted", _publish_into_current_tables,
        [*OTHER_TABLES, step("create", tables="E", of="A", next=0), step("publish", **point(1, 1, 1))]),
    Bug("progress made twice", "the creation of the progress item has no condition", "create",
        "progress_knows_the_watermark",
        lambda s, log, v: (without("there is none", "the origin")(s, log, v)),
        [*EXPIRED, step("create", tables="D", of="A", next=1)]),
    Bug("progress restored over another", "a deleted progress item is made again although there is one by now",
        "restore", "progress_next_never_falls", without("it was deleted"),
        [*TWO, *begin(1, reads=2), offer(1, 0, None, 0), *_counted(), *settle(1), offer(1, 1, 1, 1),
         step("publish", **point(1, 1, 1)), step("restore", **point(0, None, 0))]),
    # Finality.
    Bug("final without watermark", "a window is final although its log's watermark has not passed", "final",
        "final_rows_are_closed", without("the watermarks have passed"),
        [*ONE, *begin(1, reads=1), *count(1, window(0), 0, 1, 1),
         step("look_begins", reader=1, tables="D", row=window(0)), step("show", reader=1),
         step("final", reader=1, fenced="A")]),
    Bug("row read before watermarks", "a reader reads the row first and the watermarks after it", "look",
        "readers_see_the_past", without("before the row"),
        [*LATE, step("look_begins", reader=1, tables="D", row=window(0)), step("show", reader=1), *READING[len(LATE):],
         step("publish", **point(2, 6, 2)), step("look", reader=1, of="A")]),
    Bug("topic id written out of order", "an older topic id overwrites a newer one in the config item", "claim_lands",
        "topic_told_never_falls", without("in order"),
        [*TWO_LOGS, step("claim", tables="D", topic=0), step("claim_lands", tables="D", topic=0)]),
]


# Runs in which a window that was called final changes, since a premise of finality does not hold. They show that
# each premise is needed: name, what happens, the run, and the transitions that differ.
NEEDED = [
    ("no newer topic id", "the topic is made again, and its new log counts in a window that only the former one counted",
     [*TWO_LOGS, *begin(1, reads=1), *count(1, window(0), 0, 1, 1), *begin(2, "B", reads=1),
      step("look_begins", reader=1, tables="D", row=window(0)), step("show", reader=1),
      step("final", reader=1, fenced="A"), *count(2, window(0), 0, 1, 1, "B")], {}),
    ("one log in each row", "a partition is added, and a series moves to it",
     [{"rules": {"window_ms": 2, "lateness_ms": 2}}, {"log": "A", "topic": 0}, {"log": "B", "topic": 0},
      event(1), event(6), event(1, "B"), step("make_tables", tables="D"),
      *[step("create", tables="D", of=log, next=0) for log in "AB"], *READING[len(LATE):],
      step("publish", **point(2, 6, 2)), step("look_begins", reader=1, tables="D", row=window(0)),
      step("look", reader=1, of="A"), step("show", reader=1), step("final", reader=1, fenced="A"),
      *begin(2, "B", reads=1), *count(2, window(0), 0, 1, 1, "B")], {}),
    ("topic ids written in order", "an older topic id lands last in the config item, and the newest log counts on",
     [*world(event(9), event(1, "B"), event(1, "B"), logs=("A", "B")), *begin(2, "B", reads=2),
      *count(2, window(0), 0, 1, 1, "B"), step("claim", tables="D", topic=0), step("claim_lands", tables="D", topic=0),
      step("look_begins", reader=1, tables="D", row=window(0)), step("show", reader=1),
      step("final", reader=1, fenced="B"), *count(2, window(0), 1, 2, 1, "B")], {"claim_lands": ("in order",)}),
]


if __name__ == "__main__":
    for bug in BUGS:
        for patch in filter(None, bug.code.split(", ")):
            print(patch, bug.transition, bug.breaks)
