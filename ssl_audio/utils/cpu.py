"""How many processor cores a process may use."""

import os


def available_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process(processes: int) -> int:
    """Cores of one of `processes` that train together on this machine.

    A task of SLURM has its own (`--cpus-per-task`), unless torchrun started the processes within one task; else they
    share what there is.
    """
    if int(os.environ.get("SLURM_NTASKS", 0)) > 1 and "LOCAL_WORLD_SIZE" not in os.environ:  # torchrun sets the latter
        of_task = min(available_cores(), int(os.environ.get("SLURM_CPUS_PER_TASK", 0)))
        if of_task:
            return of_task
    return available_cores() // processes
