"""Brook's world, how Brook is trained, and how any served model is examined about it. Seeds come in; a checkpoint or a
table of accuracy comes out. Nothing here imports the engine; what examines needs neither torch nor transformers.

    world.py       scenes: things on a board, what happens to them, what is heard
    draw.py        how a scene looks; cameras
    sound.py       how it sounds: espeak-ng voices, beeps, noise
    bank.py        the training's spoken words, kept on disk
    film.py        a scene as a WebM or MP4 file
    foreign.py     words and questions from outside the world
    narration.py   sentences for what is there, what changes, what is heard
    moment.py      what has been shown when a question is asked
    sights.py      questions about pictures
    sounds.py      questions about sound, and about both together
    questions.py   all kinds of questions, follow-ups among them
    exam.py        films with questions, drawn from seeds that training never used
    marking.py     narration against the truth
    doors.py       how a film comes to a model, and a question about it is asked
    counted.py     what streams take in of a film, counted
    late.py        streams that have lived for a while before a film is shown
    gone.py        `python -m penstock.demos.brook.gone`: examines Brook about what its window no longer holds
    evaluate.py    `python -m penstock.demos.brook.evaluate`: examines a server by its URL, or Brook
    checkpoint.py  Brook's configuration, tokenizer and processor
    words.py       the sentences that the tokenizer is made from
    layout.py      a stream's rows and positions, as Penstock lays them
    lessons.py     streams to learn from
    hints.py       what rows shall have found out half-way up
    batch.py       lessons side by side, as tensors
    senses.py      the towers over whole batches
    speech.py      the language model over whole batches
    start.py       what the language model begins with
    descent.py     one step of training
    towers.py      what the towers are taught
    teach.py       `python -m penstock.demos.brook.teach`: teaches the towers
    mean.py        `python -m penstock.demos.brook.mean`: the mean of checkpoints
    train.py       `python -m penstock.demos.brook.train`: trains the whole
"""
