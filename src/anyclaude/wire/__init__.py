"""Frozen types and codecs of every format that crosses a process: no clock, no socket, no setting."""
