"""Which tokens of replies are guessed, so that one step says several. Decides; runs nothing.

guessing.py     the guesses of a step, and what becomes of them
lookup.py       what followed the same words earlier in a stream
reading.py      how far the draft model has read a stream
chance.py       how likely guesses are right, and how many are worth it
"""
