"""Auth0."""
