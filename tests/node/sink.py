"""A mail server that takes everything and writes down what it took: one X-Id a line.

    sink.py ADDRESS PORT FILE
"""

import socketserver
import sys
import threading

ADDRESS, PORT, FILE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LOCK = threading.Lock()


class Session(socketserver.StreamRequestHandler):
    def say(self, line):
        self.wfile.write(line.encode() + b"\r\n")

    def handle(self):
        self.say("220 sink.example ESMTP")
        while line := self.rfile.readline():
            verb = line.strip().upper()
            if verb.startswith(b"EHLO"):
                self.say("250-sink.example")
                self.say("250 8BITMIME")
            elif verb == b"DATA":
                self.say("354 go on")
                self.take()
                self.say("250 2.0.0 taken")
            elif verb == b"QUIT":
                self.say("221 2.0.0 bye")
                return
            else:
                self.say("250 2.0.0 fine")

    def take(self):
        name = None
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            if name is None and line.lower().startswith(b"x-id:"):
                name = line[5:].strip().decode()
        with LOCK, open(FILE, "a", encoding="ascii") as file:
            print(name, file=file, flush=True)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


Server((ADDRESS, PORT), Session).serve_forever()
