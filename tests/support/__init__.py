"""The stand: a real Envoy, a simulated provider, a broker, and callers of every kind.

Start reading at `stand.Stand`, which puts them together.
"""
