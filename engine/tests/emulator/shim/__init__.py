"""Fills the gaps of moto that matter to the engine's tests; see the README beside serve.py."""
