"""The layers of the proof, in the order in which they build on each other."""

from layers import rows, stores, restart, finality  # noqa: F401  (each registers its transitions and invariants)
