"""The wire and its server: WebSocket and HTTP in front of `actors.engine.Engine`. Knows no torch.

cli         the command `penstock`
config      address, key, limits
app         routes, life of the server, SIGTERM
access      origin and key
connection  one socket: receive, send, idle, drain
channel     one stream of a socket: commands in order, events out
outbox      what a client has not read yet, bounded
wire        messages of `/v1/stream`, typed both ways
websocket   uvicorn's protocol, with a cut
client      the client library
errors      errors of the wire and the server
"""
