"""Programs for people, on the public API only.

live       the main job: a film is played to a model that speaks while it watches
append     the same in one process, in ten lines
websocket  the same over a WebSocket
film       draws and encodes a small film
process    a server process for a demo
view       how `live` shows itself
"""
