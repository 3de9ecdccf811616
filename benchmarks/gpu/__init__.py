"""Every figure of an accelerator in one command: `python -m benchmarks gpu --minutes 10 --output docs/gpu`.

- `rows.py` lists what is measured, most important first, with a time limit for each row.
- `training.py`, `chain.py`, `embedding.py`, `search.py`, `exactness.py` measure.
- `worker.py` runs rows in a process of their own, which is ended when a row takes too long.
- `machine.py` identifies the machine; `report.py` writes the table; `command.py` joins all of it.
"""
