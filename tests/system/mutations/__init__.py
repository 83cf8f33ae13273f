"""Thousands of hostile copies of a dataset, a run and exported nets, each met by the commands in a
process of its own.

A case is a seeded mutation of one folder. It fails on a signal, a hang, memory beyond the clean
run's, an unexpected error, control characters on the terminal, or a planted file outside that was
read or written. Run more of them with::

    python -m tests.system.mutations --dataset 3000
    python -m tests.system.mutations --run 1000
    python -m tests.system.mutations --export 1000
"""
