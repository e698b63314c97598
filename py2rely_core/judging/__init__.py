"""Decisions made from results: masks, duplicates, classes, polishing steps, and the hand of the tilt series.

One question per module; each is asked by a step of the workflow (``py2rely task ...``) or by hand.
"""
