"""The doors of the server: each turns one wire's messages into a session's commands, and its answers into messages.

No door knows another one, a socket or the engine. `server/connection.py` says what a door over a WebSocket has to have,
`server/http_request.py` what one over HTTP.

heard               the sound of a client on one clock, for those that listen
stream              `/v1/stream`: the wire of Penstock, whose messages are in `server/wire.py`
realtime            `/v1/realtime`: OpenAI's Realtime API
gemini              `BidiGenerateContent`: Google's Gemini Live API
openai_chat         `/v1/chat/completions`
openai_completions  `/v1/completions`
openai_responses    `/v1/responses`
openai_transcription  `/v1/audio/transcriptions`, `/v1/audio/translations`
"""
