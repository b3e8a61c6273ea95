"""The vocabulary of the proof: states, transitions, invariants and bugs, for z3 and for plain Python values.

A transition is an ordinary function `def land(step, log, tables, row, ...)`. It reads the state through
`step.now`, names each of its conditions with `step.require(...)`, and changes the state with `step.write(...)`.
The same function serves twice:

- The prover calls it with z3 terms. Comparisons then build formulas, and nothing is executed.
- The checker of traces calls it with ints and strings. Comparisons then give `True` or `False`.

So there is one definition of each transition. `every` and `pick` replace `all` and `if`, which z3 terms do not support.
"""

from dataclasses import dataclass, field
from itertools import islice
from types import CodeType, FunctionType
from typing import Any, Callable

try:
    import z3
except ImportError:
    # Traces are checked without z3.
    z3 = None

INT, BOOL = "int", "bool"
TRANSITIONS: dict[str, "Transition"] = {}
INVARIANTS: dict[str, Callable] = {}
VARIABLES: dict[str, "Variable"] = {}
# Variables whose values no transition may make smaller.
RISING = ("end", "fence", "progress_next", "settled", "durable", "position", "topic", "topic_told")
# Unless this set holds the key: a progress item that was deleted may begin again.
UNLESS = {"progress_next": "progress_gone"}


# --- values -----------------------------------------------------------------------------------------------------

def is_term(value: Any) -> bool:
    """Returns whether a value is a z3 term."""
    return z3 is not None and isinstance(value, z3.ExprRef)


def both(*conditions: Any) -> Any:
    """Returns the conjunction of conditions."""
    if any(is_term(c) for c in conditions):
        return z3.And(*conditions)
    return all(conditions)


def either(*conditions: Any) -> Any:
    """Returns the disjunction of conditions."""
    if any(is_term(c) for c in conditions):
        return z3.Or(*conditions)
    return any(conditions)


def negate(condition: Any) -> Any:
    """Returns the negation of a condition."""
    return z3.Not(condition) if is_term(condition) else not condition


def pick(condition: Any, yes: Any, no: Any) -> Any:
    """Returns `yes` if the condition holds, otherwise `no`."""
    if is_term(condition):
        return z3.If(condition, yes, no)
    return yes if condition else no


# Instances of an invariant whose premise was true in a concrete state, by the invariant's name.
reached: dict[str, int] = {}
_judged = ""


def implies(premise: Any, conclusion: Callable[[], Any]) -> Any:
    """Returns `premise → conclusion()`. The conclusion is evaluated only where the premise can be true."""
    if is_term(premise):
        return z3.Implies(premise, conclusion())
    if not premise:
        return True
    reached[_judged] = reached.get(_judged, 0) + 1
    return conclusion()


# --- states -----------------------------------------------------------------------------------------------------

@dataclass
class Variable:
    """A part of the state: a map from keys of `arity` parts to ints or to booleans (then it is a set of keys)."""
    name: str
    arity: int
    kind: str
    default: Any


def variable(name: str, arity: int, kind: str = INT, default: Any = None) -> None:
    """Declares a part of the state."""
    VARIABLES[name] = Variable(name, arity, kind, default if default is not None else (0 if kind == INT else False))


class Map:
    """A variable's value: `state.fence[tables, row, log]`."""

    def __init__(self, read: Callable):
        self._read = read

    def __getitem__(self, key: Any) -> Any:
        return self._read(key if isinstance(key, tuple) else (key,))


class Cells:
    """A variable's value in a concrete state: what was written, and the default elsewhere."""

    def __init__(self, default: Any):
        self.cells, self.default = {}, default

    def __getitem__(self, key: Any) -> Any:
        return self.cells.get(key if isinstance(key, tuple) else (key,), self.default)


def _equal(a: tuple, b: tuple) -> Any:
    return both(*[x == y for x, y in zip(a, b)]) if a else True


class State:
    """All variables, as attributes. `is_symbolic` tells whether their values are z3 terms."""

    def __init__(self, maps: dict, is_symbolic: bool):
        self.maps, self.is_symbolic = maps, is_symbolic
        # For `Judge`: what has been found true for good, and what the last step has changed. None: nothing is remembered,
        # and everything may have changed.
        self.lasting: dict | None = None
        self.touched: set | None = None
        self.__dict__.update(maps)


def symbolic_state() -> State:
    """Returns a state about which nothing is known."""
    maps = {}
    for v in VARIABLES.values():
        sort = z3.IntSort() if v.kind == INT else z3.BoolSort()
        if v.arity == 0:
            constant = z3.Const(v.name, sort)
            maps[v.name] = Map(lambda key, c=constant: c)
        else:
            f = z3.Function(v.name, *[z3.IntSort()] * v.arity, sort)
            maps[v.name] = Map(lambda key, f=f: f(*key))
    return State(maps, True)


def initial_state(is_symbolic: bool) -> State:
    """Returns the state before anything happened: every variable has its default."""
    maps = {}
    for v in VARIABLES.values():
        if is_symbolic:
            value = z3.IntVal(v.default) if v.kind == INT else z3.BoolVal(v.default)
            maps[v.name] = Map(lambda key, x=value: x)
        else:
            maps[v.name] = Cells(v.default)
    return State(maps, is_symbolic)


# --- transitions ------------------------------------------------------------------------------------------------

@dataclass
class Step:
    """One application of a transition: what it requires and what it writes."""
    now: State
    guards: list[tuple[str, Any]] = field(default_factory=list)
    writes: list[tuple[str, tuple, Any]] = field(default_factory=list)
    fills: list[tuple[str, tuple, Callable, Any]] = field(default_factory=list)

    def require(self, name: str, condition: Any) -> None:
        """Adds a condition under a name, so that a bug can name what it leaves out."""
        self.guards.append((name, condition))

    def write(self, name: str, key: tuple, value: Any) -> None:
        """Sets one cell of a variable. All values are read before the step."""
        self.writes.append((name, key, value))

    def fill(self, name: str, prefix: tuple, value: Callable, over: Any) -> None:
        """Sets the cells `prefix + (x,)` for every x; `over` lists the x of a concrete state."""
        self.fills.append((name, prefix, value, over))

    def guard(self) -> Any:
        """Returns the conjunction of all conditions."""
        return both(*[condition for _, condition in self.guards])

    def refused_by(self) -> list[str]:
        """Returns the names of the conditions that do not hold in a concrete state."""
        return [name for name, condition in self.guards if condition is not True]

    def after(self) -> State:
        """Returns the state after this step."""
        if not self.now.is_symbolic:
            cells = [(name, key, value) for name, key, value in self.writes]
            cells += [(n, (*p, x), value(x)) for n, p, value, over in self.fills for x in over]
            for name, key, value in cells:
                self.now.maps[name].cells[key] = value
            return self.now
        maps = dict(self.now.maps)
        for name, at, value in self.writes:
            old = maps[name]
            maps[name] = Map(lambda key, old=old, at=at, value=value: pick(_equal(key, at), value, old[key])
                             if at else value)
        for name, prefix, value, _ in self.fills:
            old = maps[name]
            maps[name] = Map(lambda key, old=old, prefix=prefix, value=value:
                             pick(_equal(key[:-1], prefix), value(key[-1]), old[key]))
        return State(maps, True)


@dataclass
class Transition:
    """A named transition and the names of its parameters, which a line of a trace must give."""
    name: str
    parameters: list[str]
    apply: Callable

    def step(self, state: State, log: Any, values: dict) -> Step:
        """Returns the application to `state` with these parameters."""
        step = Step(state)
        self.apply(step, log, **values)
        return step

    def symbols(self) -> dict:
        """Returns a z3 constant for each parameter."""
        return {name: z3.Int(f"{name}!") for name in self.parameters}


def transition(apply: Callable) -> Callable:
    """Registers a function as the transition of its name."""
    name = apply.__name__
    names = apply.__code__.co_varnames[2:apply.__code__.co_argcount]
    TRANSITIONS[name] = Transition(name, list(names), apply)
    return apply


def invariant(check: Callable) -> Callable:
    """Registers a function `(state, log) → condition` as the invariant of its name."""
    INVARIANTS[check.__name__] = check
    return check


def judge(name: str, state: State, log: Any) -> Any:
    """Evaluates an invariant."""
    global _judged
    _judged = name
    return INVARIANTS[name](state, log)


# --- quantifiers ------------------------------------------------------------------------------------------------

def every(state: State, names: str, within: Any, condition: Callable) -> Any:
    """Returns whether the condition holds for all values of the named things.

    `within` is a variable whose keys are all that matter in a concrete state, or a list of tuples.
    """
    if state.is_symbolic:
        bound = [z3.Int(name) for name in names.split()]
        return z3.ForAll(bound, condition(*bound))
    keys = list(within.cells) if isinstance(within, Cells) else within
    return all(condition(*key) for key in keys)


def every_member(state: State, names: str, within: Any, condition: Callable) -> Any:
    """As `every`, for the members of a set that only grows, and a condition that stays true of a member for good."""
    if state.is_symbolic or state.lasting is None:
        return every(state, names, within, condition)
    site = (_judged, id(within))
    if not all(condition(*key) for key in islice(within.cells, state.lasting.get(site, 0), None)):
        return False
    state.lasting[site] = len(within.cells)
    return True


def every_worker(state: State, names: str, within: Any, condition: Callable) -> Any:
    """As `every`, for keys that begin with a worker, and a condition that only steps of this worker can make false."""
    if state.is_symbolic or state.touched is None:
        return every(state, names, within, condition)
    return all(condition(*key) for key in list(within.cells) if key[0] in state.touched)


def for_good(state: State, key: tuple, condition: Callable) -> Any:
    """Returns a condition that stays true for good once it is true; `key` names it."""
    if state.is_symbolic or state.lasting is None:
        return condition()
    if key not in state.lasting and condition() is True:
        state.lasting[key] = True
    return key in state.lasting


# --- judging concrete states ------------------------------------------------------------------------------------

def rises(name: str, key: tuple, before: State, value: Any) -> Any:
    """Returns whether a variable of RISING may get this value."""
    excused = before.maps[UNLESS[name]][key] if name in UNLESS else False
    return either(excused, value >= before.maps[name][key])


def falls(step: Step) -> list[str]:
    """Returns the variables of RISING that a concrete step makes smaller, and the sets that it makes smaller."""
    shrinks = [name for name, _, value in step.writes if value is False and name not in UNLESS.values()]
    return shrinks + [name for name, key, value in step.writes
                      if name in RISING and not rises(name, key, step.now, value)]


def read_by(code: Any, names: dict) -> set:
    """Returns the variables that code, and all functions that it names, may read. `names` are its module's."""
    found, waiting, seen = set(), [(code, names)], set()
    while waiting:
        code, names = waiting.pop()
        if code in seen:
            continue
        seen.add(code)
        found |= VARIABLES.keys() & set(code.co_names)
        waiting += [(part, names) for part in code.co_consts if isinstance(part, CodeType)]
        called = [names.get(name) for name in code.co_names]
        waiting += [(f.__code__, f.__globals__) for f in called if isinstance(f, FunctionType)]
    return found


class Judge:
    """Evaluates the invariants in each state of a run, and not more of them than its last step can have changed.

    An invariant is a function of the variables that it reads and of the log. If a step writes none of them, its value
    is the same. What `every_member` and `for_good` have found true is not evaluated again: it stays true because sets
    only grow and the variables of RISING only rise, which `falls` checks at each step. `every_worker` leaves out
    workers that the step did not write.
    """

    def __init__(self) -> None:
        self.read = {name: read_by(f.__code__, f.__globals__) for name, f in INVARIANTS.items()}
        self.lasting: dict = {}

    def broken_by(self, state: State, log: Any, step: Step | None) -> str | None:
        """Returns an invariant that does not hold after a step; None: what the log means has changed."""
        written = {name for name, *_ in step.writes + step.fills} if step else None
        state.lasting = self.lasting
        state.touched = {key[0] for _, key, _ in step.writes if key} if step else None
        concerned = (name for name, read in self.read.items() if written is None or written & read)
        found = next((name for name in concerned if judge(name, state, log) is not True), None)
        state.lasting = state.touched = None
        return found


def broken(state: State, log: Any) -> str | None:
    """Returns an invariant that does not hold, evaluated from nothing."""
    return next((name for name in INVARIANTS if judge(name, state, log) is not True), None)


# --- planted bugs -----------------------------------------------------------------------------------------------

@dataclass
class Bug:
    """A change of one transition, the invariant that it must break, and a run in which it does."""
    name: str
    says: str
    transition: str
    breaks: str
    change: Callable
    run: list
    code: str = ""

    def planted(self) -> Transition:
        """Returns the transition with the bug."""
        right = TRANSITIONS[self.transition]

        def apply(step: Step, log: Any, **values: Any) -> None:
            right.apply(step, log, **values)
            self.change(step, log, values)
        return Transition(right.name, right.parameters, apply)


def without(*names: str) -> Callable:
    """Returns a change that leaves conditions out."""
    def change(step: Step, log: Any, values: dict) -> None:
        left = [g for g in step.guards if g[0] not in names]
        assert len(left) == len(step.guards) - len(names), f"no condition named {names}"
        step.guards = left
    return change


def instead(name: str, key: Callable | None = None, value: Callable | None = None, drop: tuple = ()) -> Callable:
    """Returns a change that writes another key or another value to a variable."""
    def change(step: Step, log: Any, values: dict) -> None:
        writes = []
        for n, k, v in step.writes:
            if n == name:
                k = key(step, log, values) if key else k
                v = value(step, log, values) if value else v
            writes.append((n, k, v))
        step.writes = writes
        without(*drop)(step, log, values)
    return change
