"""A whole test set in ten minutes: vLLM and the runner on a GPU machine that has no network.

    pack     wheels, model and data in pieces small enough to be copied one by one
    unpack   there: joins what has arrived, installs it into a folder of its own
    run      there: starts vLLM, checks the engine, runs the arms, stops in time
    merge    puts what came back of several sittings together and writes the report

`pack` needs a network, `unpack` and `run` need nothing but the image's Python and PyTorch; modules
that they import at the start use the standard library only. docs/benchmarks.md has the walk.
"""
