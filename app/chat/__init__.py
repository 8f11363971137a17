"""Serving one chat request: steer, ask the model, answer, hand over to learning."""
