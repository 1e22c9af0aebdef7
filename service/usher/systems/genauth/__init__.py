"""GenAuth, and Authing, which is the same product under another name."""
