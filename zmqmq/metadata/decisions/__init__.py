"""What the controller decides about brokers and partitions: an image and a request in, records or a named error out."""
