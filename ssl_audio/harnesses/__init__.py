"""Adapters of a model to public benchmarks: HEAR, X-ARES, EVAR, MARBLE, s3prl (SUPERB) and MTEB. Each has one file.

`ssl-audio harness hear --model M --output FILE.py` writes the file that the benchmark imports. `ssl-audio harness mteb
--model M --tasks ...` runs MTEB, if it is installed. No other benchmark is imported here.
"""
