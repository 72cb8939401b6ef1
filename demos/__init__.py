"""Programs for people, on the public API only.

live       any film is played to any model that speaks while it watches
append     the same in one process, in ten lines
show       the main job: Brook watches a film of its world; answers beside the truth
websocket  the same over a WebSocket
film       draws and encodes a small film
process    a server process for a demo
view       how `live` shows itself
"""
