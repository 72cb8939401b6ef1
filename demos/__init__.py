"""Programs for people, on the public API only.

show         what `make demo` runs: Brook watches a film of its world, answers beside the truth
live         any film, played to any model that speaks while it watches
append       frames that arrive while a reply runs, in one process
websocket    the same over a WebSocket
file         a question about a film
camera       a camera, narrated
microphone   what a microphone heard
many_askers  one stream, many askers on copies of it
film         a small film of Brook's world; any film in pieces
process      a server process for a demo
view         how `live` shows itself
brook/       Brook's world, its training and its examination
"""
