"""A real sender: whatever is not taken is tried again, until the file STOP exists; then what is begun is finished.

    sender.py ADDRESS PORT RECIPIENT FILE STOP THREADS NAME

Writes a line for each thing that happened: `accepted ID`, `unclear ID` (the connection broke before the last reply, so
the mail is tried again and may come twice), `refused ID REPLY` for a 5xx, `deferred ID REPLY`, `lost ID ERROR`.
"""

import itertools
import os
import smtplib
import sys
import threading
import time

ADDRESS, PORT, RECIPIENT, FILE, STOP, THREADS, NAME = sys.argv[1:]
LOCK = threading.Lock()
OUT = open(FILE, "a", encoding="utf-8")


def note(*words):
    with LOCK:
        print(*words, file=OUT, flush=True)


def attempt(name):
    """True once it is taken."""
    sent = False
    try:
        with smtplib.SMTP(ADDRESS, int(PORT), local_hostname="mail.sender.example", timeout=60) as client:
            client.ehlo()
            for reply in (client.mail("anna@sender.example"), client.rcpt(RECIPIENT)):
                if reply[0] >= 400:
                    note("refused" if reply[0] >= 500 else "deferred", name, reply)
                    return False
            client.putcmd("data")
            code, text = client.getreply()
            if code != 354:
                note("refused" if code >= 500 else "deferred", name, (code, text))
                return False
            sent = True
            client.send(f"X-Id: {name}\r\nSubject: load\r\n\r\n{'x' * 2000}\r\n.\r\n".encode())
            code, text = client.getreply()
            sent = False
            if code == 250:
                note("accepted", name)
                return True
            note("refused" if code >= 500 else "deferred", name, (code, text))
    except (OSError, smtplib.SMTPException) as error:
        note("unclear" if sent else "lost", name, repr(error))
    return False


def work(thread):
    for number in itertools.count():
        if os.path.exists(STOP):
            return
        name = f"{NAME}-{thread}-{number}"
        while not attempt(name):
            time.sleep(0.3)
        time.sleep(0.05)


threads = [threading.Thread(target=work, args=(thread,)) for thread in range(int(THREADS))]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
