"""Local model servers: llama.cpp in a process of its own, or vLLM, and what keeps one running.

    serve_engine                 one server in this process, until a signal
    supervisor.EngineSupervisor  one server as a child process, watched and restarted

Nothing heavy is imported before it is needed, so `python -m app.engine` starts at once.
"""

from app.engine.serve import serve_engine

__all__ = ["serve_engine"]
