"""The benchmark runner: does the loop help, compared with the same number of calls?

Labels live here only; nothing under `app/` ever sees one. An arm is told one when a run's feedback
allows it and the question's step is over.
"""
