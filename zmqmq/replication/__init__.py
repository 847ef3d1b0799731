"""Leading a partition: ends, watermark, epochs, acknowledgements."""
