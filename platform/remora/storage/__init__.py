"""Adapters of the store port; each translates its driver's errors in one place."""
