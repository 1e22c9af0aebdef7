"""The clients of the identity systems' APIs: they look users up, read logs and change accounts. One file a system."""
