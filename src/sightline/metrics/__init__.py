"""Metrics: answers in, measures out. Pure functions of predictions; no torch, no model, no files.

One file is one metric (its function has the file's name and `METRIC` registers it); `measure` holds the shape
that they all return, `answers` and `findings` read yes, no and findings out of free text.
"""
