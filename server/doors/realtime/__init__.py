"""The door `/v1/realtime`: OpenAI's Realtime API (GA), text out, over the one session of the house.

door      what a client says to commands of the session, and the session's answers to the server's events
wire      the client's events and items as JSON, errors, and how an event is written
detection  turn detection, as a client configures it
settings  the configuration of a session, and what an update makes of it
sound     PCM and G.711
hearing   the input audio buffer where there is no turn detection
turns     the sound of a session with turn detection, and the items of what was said in it
speech    the sound of a conversation, and the responses to what is said in it
items     the items of the conversation, as they are shown, appended and prompted
talk      which items the cache holds, and the commands that bring a stream to a response
replies   the responses that run
response  the events of one response, in their order
transcribing  a session in which nobody replies: what is said, as words
usage     tokens of a response, by kind, and those that the cache held
"""
