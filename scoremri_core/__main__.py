"""`python -m scoremri_core` is the command line."""

from scoremri_core.commands import main

main()
