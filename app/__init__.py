"""The gateway and the Explore-Reflect-Steer loop of ttcl."""

__version__ = "0.1.0"
