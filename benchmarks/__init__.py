"""Every performance table: ours beside a plain baseline, in one run."""
