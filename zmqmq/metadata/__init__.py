"""What the cluster knows about itself: records in a log, the image they make, decisions on it, engines of the log."""
