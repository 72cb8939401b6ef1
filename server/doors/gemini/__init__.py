"""The door `BidiGenerateContent`: Google's Gemini Live API, text out, over the one session of the house.

door          what a client says, to the conversation; the session's answers, to messages
wire          messages as JSON, in both casings; why a connection ends; how a message is written
setup         what a client asks of its connection
schema        the functions that a model may call, as chat templates want them
inputs        what a client says and shows, as entries of the history
conversation  whose turn it is
history       what was said and shown, in order, and as a prompt
hearing       the sound of a connection on its own clock, and what of it was speech
talk          what the cache holds of the history, and the commands that bring a stream to a reply
resuming      handles by which a client comes back
turn          one turn of the model: its messages, in their order
usage         tokens of a turn, by kind, and those that the cache held
"""
