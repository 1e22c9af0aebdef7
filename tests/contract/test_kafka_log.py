"""What KafkaLog does beyond the common suite, on a real broker."""
