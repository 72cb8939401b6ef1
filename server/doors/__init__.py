"""The doors of the server: each turns one wire's messages into a session's commands, and its answers into messages.

No door knows another one, a socket or the engine. `server/connection.py` says what a door over a WebSocket has to have.

stream    `/v1/stream`: the wire of Penstock, whose messages are in `server/wire.py`
realtime  `/v1/realtime`: OpenAI's Realtime API
"""
