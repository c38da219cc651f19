"""Losses as pure functions of log-probabilities; they never see a model."""
