"""The Python interface: whole studies from a program, a notebook or a thread.

It prints nothing, sets up no logging, installs no signal handler and leaves the environment, `__main__` and Optuna's
log level as they are. What the commands do is done by the same code.
"""
