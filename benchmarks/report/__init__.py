"""From a run folder to a report: `summary` computes, `plots` draws, `pages` writes."""
