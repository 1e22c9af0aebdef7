"""python -m usher."""

from usher.cli import main

raise SystemExit(main())
