"""The metadata log of several brokers: Raft as a pure machine.

Sources: *paper* is Ongaro and Ousterhout's "In Search of an Understandable Consensus Algorithm (Extended Version)", *thesis* is Ongaro's
dissertation "Consensus: Bridging Theory and Practice", *2015* his mail "bug in single-server membership changes" to raft-dev. Each
rule is named by its section where it is decided.

Places in the log are *ends*: exclusive, and counted in records from 0, because one entry carries the records of one decision. So the
paper's commitIndex is ``commit_end``, matchIndex is ``match_end``, (prevLogIndex, prevLogTerm) is (``prev_end``, ``prev_term``).

``machine.Raft`` is the way in. Facts go in with the time in milliseconds, ``take_effects`` says what to do.
"""
