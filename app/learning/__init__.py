"""What happens after the answer: who hands out learning jobs, and the learner that does them."""

from app.learning.learner import Learner, LearnerOptions
from app.learning.local_worker import LocalWorker, Worker
from app.learning.reembed import Reembedding

__all__ = [
    "Learner",
    "LearnerOptions",
    "LocalWorker",
    "Reembedding",
    "Worker",
]
