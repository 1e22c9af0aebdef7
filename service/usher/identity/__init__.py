"""The identity systems' own APIs: what a webhook can't tell is asked for, polled, or done there. One file a system."""
