"""What operators ask Usher and have it do: trace events, replay dead letters, check a set-up, try an event out.

It prints nothing, asks nobody and formats no times: the command line presents it, and others can.
"""
