"""For tests, of zmqmq and of what is built on it: simulated worlds and pytest fixtures."""
