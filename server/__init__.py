"""The wire and its server: WebSocket and HTTP in front of `actors.engine.Engine`. Only `bench` knows torch.

cli         the command `penstock`
options     its parser, with option_values; examples: those of --help; settings: options from a file and the environment
progress    what shows that a model is loaded
encode_options  `penstock encode-serve`, and how `serve` finds it; encode_service: the towers that it serves
plan        `penstock plan`: how a model would share out memory
ask         `penstock ask`; ask_view: what it prints; sources: files and stdin; capture: cameras and microphones
watch       `penstock watch`: what is seen, told by itself as JSON
devices     `penstock devices`: which cameras, microphones, codecs and computers there are
demo_model  `penstock fetch-demo-model`
completion  `penstock completion`
telemetry   OpenTelemetry traces of replies, for `serve --otel`
trace       `penstock trace`: the messages of one frame from socket to token
replay      `penstock replay`: a recorded run once more
bench       `penstock bench`, a folder of its own
config      address, key, limits
app         the running server: its socket, SIGTERM, a failed engine
routes      what each path answers; models: what is said of the model, and adapters that clients load
logs        the log, as text or as JSON; request_id: under which name it has an answer's lines
keys        the keys of clients with their limits; account: what the clients of a key have used
metrics     what is counted of clients' streams, for `/metrics`; engine_metrics: the engine's own figures
answer      answers and refusals in JSON
access      origin, host and key
http        uvicorn's HTTP protocol, with bounds on sockets and requests
static      the files of the web page, `page/`
session     which commands of a client are taken, in which order, and how each is answered; no I/O
commands    what goes into a session and comes out of it
session_tasks  carries out on an engine what a session decides
doors       one module a wire: its messages to commands of a session, answers of the session to its messages
connection  one client: receive, send, idle, lost, drain
http_request  one HTTP request that asks for replies; fetching: media that it names by a URL;
            kept_media: by the name under which it came before
openai_words  OpenAI's errors, usage and events; openai_params: how replies are drawn; openai_form: what they have to
            be; openai_messages: conversations and tools; openai_inputs, openai_output: those of `/v1/responses`;
            openai_replies: those of one request; multipart: forms with files
openapi     the document of the HTTP doors; version: which Penstock this is
tool_calls  calls of tools, read from a reply while it comes
outbox      what a client has not read yet, bounded
wire        messages of `/v1/stream`, typed both ways; wire_headers: those of binary messages; wire_keep: those about a
            connection that is lost
websocket   uvicorn's protocol, with a cut
client      the client library; client_stream: one stream of it, and its replies; client_socket: its WebSocket, which
            may be lost and found again; inline: media inside a message
errors      errors of the wire and the server
"""
