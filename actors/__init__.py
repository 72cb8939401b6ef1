"""Actors: where asyncio meets the engine. The public `Engine` and `Stream` live here.

    messages.py     what the actors say to each other; frozen structs that can be encoded
    mailbox.py      two lanes: data (bounded), control (always taken)
    actor.py        the run loop of an actor, and the one place that spawns tasks
    clock.py        what is due is seen by this clock
    inputs.py       what a client hands in, looked at where it enters
    lookback.py     the newest media of a stream as it came, for questions that look back
    intake.py       one stream's decoders and timeline (synchronous)
    frozen_intake.py        the same as bytes, and back
    decode.py encode.py schedule.py generate.py     the four actors
    remote.py lines.py absence.py   an encoder in another process; several; what waits while none is there
    order.py        which calls of a stream wait for which
    adapters.py     adapters by name, loaded and unloaded while the engine runs
    grammars.py     grammars of replies are compiled, beside the event loop
    words.py        ids of long texts, found beside the scheduler
    copies.py       copies of streams as plain data, made beside the scheduler
    outbox.py       events on their way to one client, bounded
    wiring.py thread.py     the actors of one engine, made and stopped together; threads that own a model's work
    reply.py stream.py engine.py     the public API; info.py is what an engine says of itself
    on_way.py answers.py    what of a stream is on its way into the cache; what it has asked and waits for
    snapshots.py    frozen streams to files and back
    talk.py         what a stream in process and one over the network have in common; reply.py has it of replies
    ports.py        what a stream may ask of its engine
    oneshot.py      whole replies to a prompt, from whatever opens streams

Nothing here knows a wire format.
"""
