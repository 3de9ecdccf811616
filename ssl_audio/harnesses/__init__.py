"""A model as the benchmarks of others want it: HEAR, X-ARES, EVAR, MARBLE, s3prl (SUPERB), MTEB; one file each.

`ssl-audio harness hear --model M --output FILE.py` writes the file that the benchmark imports; `ssl-audio harness mteb
--model M --tasks ...` runs MTEB where it is installed. No module here imports a benchmark unless it runs it.
"""
