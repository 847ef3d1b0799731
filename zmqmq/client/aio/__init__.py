"""The asynchronous face of the client: the same machines and the same names as the sync one, waited for by tasks.

Everything runs in the loop in which the client was first used; there is no thread. A cancelled await loses nothing: what
was sent stays sent, what was not handed out is handed out next.
"""
