"""The number of processor cores that a process may use."""

import os


def available_cores() -> int:
    """The number of cores on which this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process(processes: int) -> int:
    """The number of cores for each of `processes` that train together on this machine.

    A SLURM task has its own cores (`--cpus-per-task`). Otherwise, and if torchrun started the processes within one
    task, they share the available cores.
    """
    if int(os.environ.get("SLURM_NTASKS", 0)) > 1 and "LOCAL_WORLD_SIZE" not in os.environ:  # torchrun sets the latter
        task_cores = min(available_cores(), int(os.environ.get("SLURM_CPUS_PER_TASK", 0)))
        if task_cores:
            return task_cores
    return available_cores() // processes
