"""Closes every obligation of the proof, and refuses a proof of nothing: python proof/prove.py

1. The laws of the fold, by induction (`layers/fold.py`).
2. Every invariant holds in the initial state.
3. Every transition keeps every invariant, from any state in which all invariants hold.
4. The theorem follows from the invariants.
5. Every transition can happen: a run over a concrete log takes each of them while all invariants hold, and reaches
   the premise of each invariant. z3 must not find the premises of a transition contradictory either.
6. Every planted bug breaks the invariant that it names: z3 cannot close the obligation, and a run over a concrete log
   ends in a state where the invariant is false.
7. Each premise of finality is needed, each trace in `traces` and each account of real services is judged as it should
   be, and random runs (`walk.py`) keep what z3 has proved.

The exit code is 1 if anything is open, unknown, contradictory or not refuted.
"""

import sys
import time

import z3

import layers  # noqa: F401
import engine
import refine
import runs
from bugs import BUGS, NEEDED
from check_observed import check_observed
from check_traces import check_traces
from engine import INVARIANTS, RISING, TRANSITIONS, VARIABLES, initial_state, judge, symbolic_state
from layers import fold
from logs import SymbolicLog
from theorem import conclusions
from walk import walk_all

# The slowest obligation takes half a second.
TIMEOUT_MS = 10_000
# Once so many obligations are open, the others get less time, so that the report comes soon.
OPEN_MANY, SHORT_TIMEOUT_MS = 2, 1_000
# A bug needs no proof: a run refutes it. z3 must only fail to close the obligation.
BUG_TIMEOUT_MS = 150
# Seeds, and steps tried with each.
WALKS = (20, 6_000)


def solve(premises: list, goal, timeout_ms: int = TIMEOUT_MS):
    """Returns z3's answer to premises and the negated goal; `unsat` means that the goal follows."""
    solver = z3.Solver()
    solver.set("timeout", timeout_ms)
    solver.add(*premises)
    if goal is not None:
        solver.add(z3.Not(goal))
    return solver.check()


class Report:
    """What is closed and what is open."""

    def __init__(self) -> None:
        self.closed, self.open = 0, []

    def close(self, name: str, premises: list, goal) -> None:
        """Notes an obligation."""
        answer = solve(premises, goal, TIMEOUT_MS if len(self.open) < OPEN_MANY else SHORT_TIMEOUT_MS)
        if answer == z3.unsat:
            self.closed += 1
        else:
            self.open.append(f"{name}: {'not provable' if answer == z3.sat else 'unknown'}")
            print(f"open: {self.open[-1]}", flush=True)


def never_falls(name: str, state, after):
    """Returns that a variable has no smaller value after a step."""
    key = tuple(z3.Int(f"k{at}") for at in range(VARIABLES[name].arity))
    return engine.rises(name, key, state, after.maps[name][key])


def prove_transition(report: Report, transition, state, log, premises, only=None) -> None:
    """Closes the obligations of one transition."""
    step = transition.step(state, log, transition.symbols())
    after = step.after()
    for name in INVARIANTS:
        if only is None or name == only:
            report.close(f"{transition.name} keeps {name}", [*premises, step.guard()], judge(name, after, log))
    for name in RISING:
        if only is None or name == only:
            report.close(f"{transition.name}: {name} never falls", [*premises, step.guard()],
                         never_falls(name, state, after))


def prove(report: Report) -> list:
    """Closes all obligations of the protocol; returns the premises that all transitions share."""
    for name, premises, goal in fold.obligations():
        report.close(name, premises, goal)
    log = SymbolicLog()
    laws = log.laws()
    first = initial_state(True)
    for name in INVARIANTS:
        report.close(f"{name} holds at first", laws, judge(name, first, log))
    state = symbolic_state()
    premises = [*laws, *[judge(name, state, log) for name in INVARIANTS]]
    for transition in TRANSITIONS.values():
        prove_transition(report, transition, state, log, premises)
    for name, assumed, goal in conclusions(state, log):
        report.close(f"theorem: {name}", [*premises, *assumed], goal)
    return premises


def check_premises(premises: list) -> list[str]:
    """Returns what makes the proof vacuous."""
    problems = []
    log, state = SymbolicLog(), symbolic_state()
    for transition in TRANSITIONS.values():
        step = transition.step(state, log, transition.symbols())
        if solve([*premises, step.guard()], None, BUG_TIMEOUT_MS) == z3.unsat:
            problems.append(f"{transition.name} can never happen: its premises contradict each other")
    engine.reached.clear()
    taken = set()
    for run in runs.GOOD.values():
        problems += runs.play(run, TRANSITIONS, taken)
    problems += [f"no run takes {name}" for name in TRANSITIONS if name not in taken]
    problems += [f"no run reaches the premise of {name}" for name in INVARIANTS if not engine.reached.get(name)]
    return problems


def refute(bug, premises: list) -> tuple[bool, str]:
    """Tells whether a planted bug is refuted, and how."""
    log, state = SymbolicLog(), symbolic_state()
    planted = bug.planted()
    step = planted.step(state, log, planted.symbols())
    after = step.after()
    falls = bug.breaks.removesuffix("_never_falls")
    goal = never_falls(falls, state, after) if falls in RISING else judge(bug.breaks, after, log)
    answer = solve([*premises, step.guard()], goal, BUG_TIMEOUT_MS)
    if answer == z3.unsat:
        return False, f"z3 still proves that {bug.transition} keeps {bug.breaks}"
    right = runs.play(bug.run, TRANSITIONS, set())
    if right and "breaks" in right[0]:
        return False, f"its run breaks the right protocol: {right[0]}"
    wrong = runs.play(bug.run, {**TRANSITIONS, bug.transition: planted}, set())
    if not wrong or bug.breaks not in wrong[0]:
        return False, f"its run does not break {bug.breaks}: {wrong}"
    return True, wrong[0]


def is_needed(run: list, left_out: dict) -> str:
    """Plays a run in which a premise of finality does not hold; returns what is wrong with it, if anything."""
    transitions = dict(TRANSITIONS)
    for name, conditions in left_out.items():
        transitions[name] = engine.Bug("", "", name, "", engine.without(*conditions), []).planted()
    player = refine.Player(transitions, judges=False)
    try:
        for line in run:
            player.feed(line)
    except refine.Refused as refused:
        if not left_out or "never_falls" not in str(refused):
            return str(refused)
    now, logs = player.state, player.log.logs
    for (q,) in now.called_final.cells:
        key = now.reads_tables[q], now.reads_row[q]
        if sum(now.count[(*key, L)] for L in logs) != sum(now.shown_count[q, L] for L in logs):
            return ""
    return "the window that was called final did not change"


def main() -> int:
    """Runs all; returns the exit code."""
    begun = time.monotonic()
    report = Report()
    premises = prove(report)
    proved = time.monotonic()
    print(f"{report.closed} obligations closed, {len(report.open)} open, {proved - begun:.1f} s "
          f"({len(TRANSITIONS)} transitions, {len(INVARIANTS)} invariants)")
    vacuous = check_premises(premises)
    print(f"{len(TRANSITIONS)} premises satisfiable and reached" if not vacuous else "the proof is vacuous:")
    for problem in vacuous:
        print(f"  {problem}")
    kept = 0
    for bug in BUGS:
        refuted, how = refute(bug, premises)
        kept += not refuted
        print(f"  {'refuted' if refuted else 'NOT REFUTED'}: {bug.name} ({bug.transition} → {bug.breaks}): {how}")
    print(f"{len(BUGS) - kept} of {len(BUGS)} planted bugs refuted")
    unneeded = 0
    for name, says, run, left_out in NEEDED:
        problem = is_needed(run, left_out)
        unneeded += bool(problem)
        print(f"  {'NOT SHOWN: ' + problem if problem else 'needed'}: {name}; else {says}")
    traces, refusals = check_traces()
    print(f"{traces} traces judged as expected" if not refusals else "traces misjudged:")
    for problem in refusals:
        print(f"  {problem}")
    accounts, misjudged = check_observed()
    print(f"{accounts} accounts of real services judged as expected" if not misjudged else "accounts misjudged:")
    for problem in misjudged:
        print(f"  {problem}")
    steps, wrong = walk_all(*WALKS)
    print(f"{steps} random steps keep every invariant" if not wrong else "random runs contradict the proof:")
    for problem in wrong:
        print(f"  {problem}")
    broken = bool(wrong or report.open or vacuous or kept or unneeded or refusals or misjudged)
    print(f"{'FAILED' if broken else 'proved'} in {time.monotonic() - begun:.1f} s")
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
