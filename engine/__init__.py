"""The engine: segments in, tokens out. Synchronous; knows torch and transformers, not asyncio, bytes or sockets.

At the foot are the contracts that all wings share; a wing imports only wings before it in this list.

    span.py plan.py         what goes between the parts: encoded media by name, one step
    graph.py                an object with all that it holds as bytes, and back
    embeddings.py           what towers make
    logits.py               what a model does with its logits after the output layer
    frozen.py               a stream that is to go on elsewhere
    prefix.py               which pages can be found by what they hold
    pages.py positions.py   who holds which page of the cache; where a row stands
    config.py               how an engine is set up
    command.py              what may be asked of the scheduler
    encoding.py             messages and records as bytes and back
    words/                  words to ids and back
    family.py               what a family of models is
    runner/                 what computes: language model, towers, attention
    families/               the families that are served
    conversation/           one stream: inputs become rows, tokens become replies
    guessing/               tokens of replies that are guessed
    scheduling/             all streams: who goes next, who holds which page
    loading/                a checkpoint becomes a model that can be served
    remote.py               what is said to an encoder in another process, and its answers
    core.py                 the three parts together, driven by hand
    record.py               a run as a file, and the run once more
    snapshot.py             a frozen stream as a file, and back
    brook/                  the home of the small model that comes along
"""

import os

# How long OpenMP's threads stay awake at the end of a loop: about a millisecond, which is longer than what lies between
# two loops of a step. Their library reads it once, when torch loads it. By default it is long: if another process wants
# a core, threads that only wait keep it from those that compute, and a step takes many times longer. If they slept at
# once, a step of a small model would take 1.7 times as long. What a user has set holds.
for _name, _value in (("GOMP_SPINCOUNT", "30000"), ("KMP_BLOCKTIME", "1")):
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(_name, _value)
