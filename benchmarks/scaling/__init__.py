"""What so many requests a second need: a simulation that takes measured unit costs.

    python -m benchmarks.scaling simulate                        # 100, 1,000 and 10,000 a second
    python -m benchmarks.scaling simulate --rate 250 --sample-rate 0.05
    python -m benchmarks.scaling measure --out costs.json        # this machine's gateway; Linux

docs/scaling.md says what follows from it, and what it leaves out.
"""
