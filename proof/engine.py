"""The vocabulary of the proof: states, transitions, invariants and bugs, for z3 and for plain Python values.

A transition is an ordinary function `def land(step, log, tables, row, ...)`. It reads the state through
`step.now`, names each of its conditions with `step.require(...)`, and changes the state with `step.write(...)`.
The same function serves twice:

- The prover calls it with z3 terms. Comparisons then build formulas, and nothing is executed.
- The checker of traces calls it with ints and strings. Comparisons then give `True` or `False`.

So there is one definition of each transition. `every` and `pick` replace `all` and `if`, which z3 terms do not support.
"""

from dataclasses import dataclass, field
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

    def __init__(self, read: Callable, cells: dict | None = None):
        self._read, self.cells = read, cells

    def __getitem__(self, key: Any) -> Any:
        return self._read(key if isinstance(key, tuple) else (key,))


def _equal(a: tuple, b: tuple) -> Any:
    return both(*[x == y for x, y in zip(a, b)]) if a else True


class State:
    """All variables. `is_symbolic` tells whether their values are z3 terms."""

    def __init__(self, maps: dict[str, Map], is_symbolic: bool):
        self.maps, self.is_symbolic = maps, is_symbolic

    def __getattr__(self, name: str) -> Map:
        return self.maps[name]


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
            cells: dict = {}
            maps[v.name] = Map(lambda key, c=cells, d=v.default: c.get(key, d), cells)
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
    keys = list(within.cells) if isinstance(within, Map) else within
    return all(condition(*key) for key in keys)


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
