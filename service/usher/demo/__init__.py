"""The demo: a real `usher run` with invented users, what comes of their events, and a judge who checks that all of it happened."""
