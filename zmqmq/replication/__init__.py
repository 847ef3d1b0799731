"""Leading and following partitions: ends, watermark, epochs, the in-sync set, acknowledgements."""
