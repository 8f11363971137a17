"""What so many requests a second need: unit costs measured here, and a simulation that takes them.

    python -m benchmarks.scaling measure --out costs.json        # a few minutes, Linux
    python -m benchmarks.scaling simulate --costs costs.json     # 100, 1,000 and 10,000 a second
    python -m benchmarks.scaling simulate --rate 250 --sample-rate 0.05
    python -m benchmarks.scaling check --costs costs.json        # simulated against a real load

docs/scaling.md says what follows from it, and what it leaves out.
"""
